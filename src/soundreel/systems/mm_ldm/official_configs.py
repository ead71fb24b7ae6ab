"""The published MM-LDM configuration dictionaries as our configurations."""

from collections.abc import Mapping
from typing import Any, TypeVar

from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig
from soundreel.systems.mm_ldm.discriminator import DiscriminatorConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAEConfig
from soundreel.systems.mm_ldm.perceptual_encoders import (
    AudioEncoderConfig,
    PerceptualEncoderConfig,
    VideoEncoderConfig,
)
from soundreel.systems.mm_ldm.semantic import ProjectorConfig
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.types import LatentSpec

Published = Mapping[str, Any]
Encoder = TypeVar("Encoder", bound=PerceptualEncoderConfig)


def kl_vae_config(published: Published) -> KLVAEConfig:
    """Return from the `ddconfig` of a latent diffusion first stage, flat or nested."""
    sizes = published.get("ddconfig", published)
    if sizes.get("attn_resolutions"):
        raise SoundreelError(
            f"attn_resolutions {sizes['attn_resolutions']}: only first stages without attention "
            "outside the middle block are supported, as in Stable Diffusion"
        )
    embed_dim = published.get("embed_dim", sizes["z_channels"])
    return KLVAEConfig(
        image_channels=sizes["in_channels"],
        latent_channels=embed_dim,
        z_channels=None if sizes["z_channels"] == embed_dim else sizes["z_channels"],
        width=sizes["ch"],
        channel_mult=tuple(sizes["ch_mult"]),
        num_res_blocks=sizes["num_res_blocks"],
        latent_scale=published.get("scale_factor", 0.18215),
    )


def encoder_config(
    kind: type[Encoder], published: Published, features: list[tuple[int, int]]
) -> Encoder:
    """Return a video or audio encoder's, given the decoder's blocks that receive its features."""
    return kind(
        image_channels=published["in_channels"],
        image_size=published["image_size"],
        latent_channels=published["out_channels"],
        width=published["model_channels"],
        channel_mult=tuple(published["channel_mult"]),
        num_res_blocks=published["num_res_blocks"],
        head_width=published["num_head_channels"],
        attention_factors=tuple(published["attention_resolutions"]),
        feature_channels=tuple(channels for channels, _ in features),
        feature_factors=tuple(factor for _, factor in features),
        gradient_checkpointing=published.get("use_checkpoint", False),
    )


def projector_config(published: Published) -> ProjectorConfig:
    return ProjectorConfig(
        semantic_dim=published["out_channels"],
        width=published["model_channels"],
        channel_mult=tuple(published["channel_mult"]),
        num_res_blocks=published["num_res_blocks"],
        head_width=published["num_head_channels"],
        attention_factors=tuple(published["attention_resolutions"]),
        gradient_checkpointing=published.get("use_checkpoint", False),
    )


def signal_decoder_config(published: Published) -> SignalDecoderConfig:
    """Return the release's decoder: z is flattened into the embedding; every map starts at zero."""
    return SignalDecoderConfig(
        image_channels=published["in_channels"],
        image_size=published["image_size"],
        width=published["model_channels"],
        channel_mult=tuple(published["channel_mult"]),
        num_res_blocks=published["num_res_blocks"],
        attention_factors=tuple(published["attention_resolutions"]),
        num_heads=published["num_heads"],
        transformer_depth=published["transformer_depth"],
        context_dim=published["context_dim"],
        num_classes=published["num_class"],
        latent_embedding="flattened",
        map_init="both",
        freeze_time_embedding=True,
        gradient_checkpointing=published.get("use_checkpoint", False),
    )


def latent_spec(published: Published) -> LatentSpec:
    """Return the shapes of z_v and z_a that the release's decoder is told."""
    video, audio = published["vid_latent_shape"], published["aud_latent_shape"]
    return LatentSpec(
        video_channels=video[0],
        video_size=video[1],
        audio_channels=audio[0],
        audio_size=audio[1],
    )


def discriminator_config(published: Published) -> DiscriminatorConfig:
    return DiscriminatorConfig(
        image_size=published["image_size"],
        image_channels=published["in_channels"],
        width=published["model_channels"],
        channel_mult=tuple(published["channel_mult"]),
        num_res_blocks=published["num_res_blocks"],
        head_width=published["num_head_channels"],
        joint_attention=tuple(published["spatial_attention_resolutions"]),
        temporal_attention=tuple(published["temporal_attention_resolutions"]),
        gradient_checkpointing=published.get("use_checkpoint", False),
    )


def autoencoder_config(
    published: Published, *, num_frames: int, key_frames: tuple[int, ...], num_prompt_tokens: int
) -> AutoencoderConfig:
    """Return the whole autoencoder from a dictionary of its parts' dictionaries."""
    decoder = signal_decoder_config(published["signal_decoder"])
    return AutoencoderConfig(
        video_encoder=encoder_config(
            VideoEncoderConfig, published["video_encoder"], decoder.feature_blocks
        ),
        audio_encoder=encoder_config(
            AudioEncoderConfig, published["audio_encoder"], decoder.feature_blocks
        ),
        video_projector=projector_config(published["video_projector"]),
        audio_projector=projector_config(published["audio_projector"]),
        decoder=decoder,
        num_frames=num_frames,
        key_frames=key_frames,
        num_prompt_tokens=num_prompt_tokens,
        contrastive_dim=published["contrastive_head"]["model_channels"],
    )
