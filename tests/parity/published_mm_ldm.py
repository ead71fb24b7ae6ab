"""Configurations and parameter names of the published MM-LDM modules, as ours."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig
from soundreel.systems.mm_ldm.discriminator import DiscriminatorConfig
from soundreel.systems.mm_ldm.generator import SEQUENCE_ORDER
from soundreel.systems.mm_ldm.kl_vae import KLVAEConfig
from soundreel.systems.mm_ldm.official_keys import RESIDUAL, Rules, from_official
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


ATTENTION: Rules = ((r"\.attention\.(\d+)\.out\.", r".attention.\1.proj_out."),)

TRUNK: Rules = (
    (r"^trunk\.blocks\.0\.conv\.", "input_blocks.0."),
    (r"^trunk\.blocks\.(\d+)\.conv\.", r"input_blocks.\1.0.op."),
    (r"^trunk\.blocks\.(\d+)\.residual\.", r"input_blocks.\1.0."),
    *ATTENTION,
    (r"^trunk\.blocks\.(\d+)\.attention\.0\.", r"input_blocks.\1.1."),
    (r"^trunk\.blocks\.(\d+)\.attention\.1\.", r"input_blocks.\1.2."),
    *RESIDUAL,
)


def _encoder_rules(modality: str) -> Rules:
    head = ((r"block\.conv\.", "0."), (r"norm\.", "1."), (r"out\.", "3."))
    heads = [
        (rf"^{ours}\.{part}", f"{theirs}.{number}")
        for ours, theirs in (("mean_head", "out_vc"), ("logvar_head", "out_vc_var"))
        for part, number in head
    ]
    return (
        (r"^content$", f"{modality}_content"),
        *heads,
        (r"^index_embed\.first\.", "index_embed.0."),
        (r"^index_embed\.last\.", "index_embed.2."),
        (r"^pyramid\.blocks\.(\d+)\.residual\.", r"output_blocks.\1.0."),
        (r"^pyramid\.blocks\.(\d+)\.out\.", r"output_blocks.\1.1.0."),
        *TRUNK,
    )


VIDEO_ENCODER = _encoder_rules("video")
AUDIO_ENCODER = _encoder_rules("audio")

PROJECTOR: Rules = (
    (r"^conv\.", "out.0."),
    (r"^norm\.", "out.1."),
    (r"^out\.(?=weight|bias)", "out.4."),
    *TRUNK,
)

CLASS_HEAD: Rules = (
    (r"^(map_\w+)\.conv1\.", r"\1.0."),
    (r"^(map_\w+)\.conv2\.", r"\1.2."),
    (r"^out\.", "out.4."),
    (r"^mix\.", "out.0."),
    (r"^norm\.", "out.1."),
)

CONTRASTIVE_HEAD: Rules = (
    (r"^(map_\w+)\.conv1\.", r"\1.0."),
    (r"^(map_\w+)\.norm\.", r"\1.1."),
    (r"^(map_\w+)\.conv2\.", r"\1.3."),
    (r"^out_(\w+)\.", r"map_\1.5."),
    (r"^temperature_", "contrastive_temp_"),
)

DISCRIMINATOR: Rules = (
    (r"^slot_embed$", "frame_embed"),
    (r"^block\.conv\.", "out.0."),
    (r"^norm\.", "out.1."),
    (r"^out\.(?=weight|bias)", "out.5."),
    *TRUNK,
)


def load_official(module: nn.Module, state: Mapping[str, Tensor], rules: Rules) -> None:
    """Copy published tensors into a module; raises `SoundreelError` as `from_official` does."""
    module.load_state_dict(from_official(module, state, rules))


PUBLISHED_PREFIXES = (
    ("time_embedding.first.", "t_embedder.mlp.0."),
    ("time_embedding.last.", "t_embedder.mlp.2."),
    ("context_projection.", "c_embedder."),
    *(
        pair
        for name in SEQUENCE_ORDER
        for pair in (
            (f"embed.{name}.start", f"eos_{name}"),
            (f"embed.{name}.modality_embedding", f"mod_embed_{name}"),
            (f"embed.{name}.position_table", f"pos_embed_{name}"),
            (f"embed.{name}.patch.", f"x_embedder_{name}.proj."),
            (f"embed.{name}.condition_patch.", f"cond_embedder_{name}.proj."),
            (f"head.{name}.output.", f"final_layer_{name}.linear."),
            (f"head.{name}.modulation.", f"final_layer_{name}.adaLN_modulation."),
        )
    ),
)
PUBLISHED_BLOCK_PARTS = (
    (".attention.qkv.", ".attn.qkv."),
    (".attention.output.", ".attn.proj."),
    (".mlp.0.", ".mlp.fc1."),
    (".mlp.2.", ".mlp.fc2."),
    (".modulation.", ".adaLN_modulation."),
)


def _rename(key: str, *, to_published: bool) -> str:
    source, target = (0, 1) if to_published else (1, 0)
    if key.startswith("blocks."):
        for pair in PUBLISHED_BLOCK_PARTS:
            if pair[source] in key:
                return key.replace(pair[source], pair[target])
    for pair in PUBLISHED_PREFIXES:
        if key.startswith(pair[source]):
            return pair[target] + key.removeprefix(pair[source])
    raise SoundreelError(f"no name is known for the weight {key!r} of a joint transformer")


def from_published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the published transformer under the names of `JointTransformer`."""
    return {_rename(key, to_published=False): value for key, value in state.items()}


def to_published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a `JointTransformer` under the published names."""
    return {_rename(key, to_published=True): value for key, value in state.items()}


UNUSED_PUBLISHED_PREFIX = "final_layer_"


def history_encoder_from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the published condition encoder under the names of `HistoryEncoder`."""
    taps = {
        f"taps.{key.split('.')[1]}.weight": value
        for key, value in state.items()
        if key.startswith("zero_layers.")
    }
    others = {
        key: value
        for key, value in state.items()
        if not key.startswith(("zero_layers.", UNUSED_PUBLISHED_PREFIX))
    }
    return {**from_published_state(others), **taps}


def history_encoder_to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a `HistoryEncoder` under the published names, without the unused heads."""
    taps = {
        f"zero_layers.{key.split('.')[1]}.0.weight": value
        for key, value in state.items()
        if key.startswith("taps.")
    }
    others = {key: value for key, value in state.items() if not key.startswith("taps.")}
    return {**to_published_state(others), **taps}
