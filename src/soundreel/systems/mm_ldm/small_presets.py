"""Presets of MM-LDM for one GPU or a patient CPU."""

from dataclasses import replace
from math import gcd

from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import MelImageConfig
from soundreel.config import DataConfig
from soundreel.diffusion.config import DiffusionConfig
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig
from soundreel.systems.mm_ldm.autoencoder_loss import AutoencoderLossConfig
from soundreel.systems.mm_ldm.config import (
    AdversarialRun,
    AutoencoderRun,
    FirstStageRun,
    GeneratorRun,
    MMLDMConfig,
)
from soundreel.systems.mm_ldm.decoding import DecodingConfig
from soundreel.systems.mm_ldm.discriminator import DiscriminatorConfig
from soundreel.systems.mm_ldm.first_stage_loss import FirstStageLossConfig
from soundreel.systems.mm_ldm.generator_config import GeneratorSizes
from soundreel.systems.mm_ldm.generator_loss import GeneratorObjective
from soundreel.systems.mm_ldm.kl_vae import KLVAEConfig
from soundreel.systems.mm_ldm.perceptual_encoders import AudioEncoderConfig, VideoEncoderConfig
from soundreel.systems.mm_ldm.sampling import SamplingConfig
from soundreel.systems.mm_ldm.semantic import ProjectorConfig
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec

NUM_SCENE_KINDS = 11  # that `soundreel render` draws


def small() -> MMLDMConfig:
    """Return a preset for two CPU cores: 64x64 at 10 fps, 16 kHz, all frames as key frames.

    An own first stage comes first, with a linear shortcut and twice the published channels: a small
    network of four keeps neither a mouth's movement nor the lines of a mel image. z_v holds eight
    coefficients over time. The sound keeps the published mel bands, so published vocoders fit.
    Batches are small: at this size the number of steps counts, not their smoothness. Seconds of one
    busy core per clip and step: 0.13 in stage 1, 0.17 in stage 2, 0.02 in stage 3.
    """
    clip = ClipSpec(height=64, width=64, sample_rate=16_000)
    decoder = SignalDecoderConfig(
        image_channels=8,
        image_size=8,
        width=96,
        channel_mult=(1, 2),
        num_res_blocks=2,
        attention_factors=(1, 2),
        num_heads=4,
        context_dim=192,
        linear_shortcut=True,
        num_classes=0,
    )
    model = small_autoencoder(decoder, width=96, channels=(64, 16), key_frames=tuple(range(16)))
    train = TrainConfig(
        total_samples=18_000,
        global_batch_size=8,
        micro_batch_size=8,
        learning_rate=4e-4,
        warmup_samples=800,
        decay_samples=3_200,
        ema_decay=0.998,
        max_grad_norm=1.0,
        log_every=320,
        save_every=1_600,
        preview_every=4_800,
    )
    return MMLDMConfig(
        clip=clip,
        class_labels=True,
        mel_image=MelImageConfig(sample_rate=16_000, num_samples=clip.num_samples, image_size=64),
        first_stage=FirstStageRun(
            model=KLVAEConfig(latent_channels=8, width=32, num_res_blocks=1, linear_shortcut=True),
            adversary=False,
            loss=FirstStageLossConfig(perceptual_weight=0.1, num_frames=1),
            train=replace(
                train,
                total_samples=7_200,
                global_batch_size=4,
                micro_batch_size=4,
                learning_rate=1e-3,
                warmup_samples=400,
                decay_samples=1_600,
                ema_decay=0.995,
                preview_every=1_600,
            ),
        ),
        autoencoder=AutoencoderRun(
            model=model,
            cache_first_stage=True,
            semantic_rate_share=0.25,
            loss=AutoencoderLossConfig(kl_weight=1e-6, drop_probability=0.2, num_target_frames=6),
            train=train,
        ),
        adversarial=AdversarialRun(
            enabled=False,
            discriminator=DiscriminatorConfig(
                image_size=64,
                channel_mult=(1, 2, 3, 4),
                head_width=32,
                joint_attention=(8,),
                temporal_attention=(2, 4),
            ),
            train=replace(
                train, total_samples=3_200, learning_rate=1e-4, warmup_samples=0, decay_samples=0
            ),
        ),
        generator=GeneratorRun(
            model=GeneratorSizes(
                video_patch_size=2,
                audio_patch_size=2,
                width=256,
                depth=8,
                num_heads=8,
                context_dim=64,
                num_context_tokens=4,
            ),
            num_axes=256,
            loss=GeneratorObjective(
                prediction_type="v",
                audio_condition=0.25,
                video_condition=0.25,
                known_loss_weight=0.0,
            ),
            train=replace(
                train,
                total_samples=160_000,
                warmup_samples=1_600,
                decay_samples=20_000,
                global_batch_size=16,
                micro_batch_size=16,
                ema_decay=0.999,
                log_every=3_200,
                save_every=16_000,
                preview_every=32_000,
            ),
        ),
        diffusion=DiffusionConfig(schedule="scaled-linear", prediction_type="v"),
        decoding=DecodingConfig(
            num_steps=10,
            video_guidance_scale=1.0,
            audio_guidance_scale=1.0,
            shared_frame_noise=True,
        ),
        sampling=SamplingConfig(num_steps=50, video_guidance_scale=1.0, audio_guidance_scale=1.0),
        data=DataConfig(stride=2),
    )


def scenes() -> MMLDMConfig:
    """Return `small` with the kinds of rendered scenes as classes.

    Generator and signal decoder are told the class. The mel bands reach up to half the sample rate:
    crackles above 5.8 kHz tell fireworks from thunder. z_v holds all sixteen coefficients over
    time, its changes have axes of their own, and the generator one token per frame: without these
    it is lost when something happens. Autoencoder and generator are smaller than those of `small`,
    so that the packed model fits into 32 MiB.
    """
    base = small()
    mel = MelConfig(filterbank_sample_rate=base.clip.sample_rate)
    decoder = replace(
        base.autoencoder.model.decoder,
        width=80,
        context_dim=64,
        num_classes=NUM_SCENE_KINDS,
    )
    model = small_autoencoder(decoder, width=80, channels=(128, 16), key_frames=tuple(range(16)))
    generator = replace(
        base.generator.model,
        depth=6,
        frame_tokens=16,
        audio_token_rows=2,
        time_biased_heads=4,
        num_classes=NUM_SCENE_KINDS,
    )
    first_stage = replace(
        base.first_stage,
        # Squared errors learn the scenes' many colours sooner than absolute ones.
        loss=replace(base.first_stage.loss, reconstruction="mse"),
    )
    autoencoder = replace(
        base.autoencoder,
        model=model,
        loss=replace(base.autoencoder.loss, drop_probability=0.1),
        train=replace(base.autoencoder.train, total_samples=13_600),
    )
    return replace(
        base,
        data=replace(base.data, stride=4),
        mel_image=replace(base.mel_image, mel=mel),
        first_stage=first_stage,
        autoencoder=autoencoder,
        generator=replace(
            base.generator,
            model=generator,
            movement_axes=64,
            loss=replace(base.generator.loss, known_class_drop=0.5),
            train=replace(base.generator.train, total_samples=1_000_000, decay_samples=80_000),
        ),
        sampling=replace(base.sampling, video_guidance_scale=2.0, audio_guidance_scale=2.0),
    )


def native(base: MMLDMConfig) -> MMLDMConfig:
    """Return a configuration whose mel image has a row for each band and a column for each hop.

    Nothing is scaled; black fills both sides up to multiples of 16 pixels. The adversary of stage
    2, which compares the image with frames, is left out.
    """
    mel = replace(base.mel_image, image_size=0)
    factor = base.first_stage.model.factor
    height, width = (side // factor for side in mel.image_shape)
    model = base.autoencoder.model
    encoder = replace(model.audio_encoder, image_size=height, image_width=width)
    return replace(
        base,
        mel_image=mel,
        autoencoder=replace(base.autoencoder, model=replace(model, audio_encoder=encoder)),
        adversarial=replace(base.adversarial, enabled=False),
    )


def small_native() -> MMLDMConfig:
    """Return `small` with 80 bands by 100 columns in an image of 80 by 112 pixels, not 64 by 64."""
    return native(small())


def small_autoencoder(
    decoder: SignalDecoderConfig,
    *,
    width: int,
    channels: tuple[int, int],
    key_frames: tuple[int, ...],
    num_frames: int = 16,
    halve_audio: bool = False,
) -> AutoencoderConfig:
    """Return z_v of the first stage's size, z_a of that or half of it; v-prediction; spread
    indices.

    Args:
        channels: of z_v and z_a.
    """
    features = decoder.feature_blocks
    video_channels, audio_channels = channels
    video = VideoEncoderConfig(
        image_channels=decoder.image_channels,
        image_size=decoder.image_size,
        latent_channels=video_channels,
        width=width,
        channel_mult=(1,),
        num_res_blocks=2,
        head_width=gcd(width, 32),
        attention_factors=(1,),
        feature_channels=tuple(channels for channels, _ in features),
        feature_factors=tuple(factor for _, factor in features),
        index_scale=1000.0,
        index_gate_channels=64,
        stacked_frames=len(key_frames),
        linear_shortcut=decoder.linear_shortcut,
    )
    projector = ProjectorConfig(
        semantic_dim=decoder.context_dim,
        width=32,
        channel_mult=(1, 2, 2),
        num_res_blocks=1,
        head_width=32,
        attention_factors=(2, 4),
    )
    return AutoencoderConfig(
        video_encoder=video,
        audio_encoder=AudioEncoderConfig.like(
            video,
            latent_channels=audio_channels,
            channel_mult=(1, 2) if halve_audio else (1,),
            attention_factors=(1, 2) if halve_audio else (1,),
        ),
        video_projector=projector,
        audio_projector=replace(
            projector,
            channel_mult=(1, 2) if halve_audio else projector.channel_mult,
            attention_factors=(1, 2) if halve_audio else projector.attention_factors,
        ),
        decoder=decoder,
        num_frames=num_frames,
        key_frames=key_frames,
        num_prompt_tokens=4,
        contrastive_dim=64,
        prediction_type="v",
    )
