"""Presets of joint_flow: for rendered scenes, one's own clips, GPUs, and tests."""

from dataclasses import replace
from fractions import Fraction

from soundreel.config import PreviewConfig
from soundreel.systems.joint_flow.audio_codec import AudioCodecConfig
from soundreel.systems.joint_flow.audio_objective import AudioLossConfig
from soundreel.systems.joint_flow.config import (
    AudioStage,
    JointFlowConfig,
    JointFlowOptions,
    TransformerStage,
    VideoStage,
)
from soundreel.systems.joint_flow.transformer import TransformerSizes
from soundreel.systems.joint_flow.video_decoder import VideoDecoderConfig
from soundreel.systems.joint_flow.video_encoder import VideoEncoderConfig
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec

CODEC_TRAIN = TrainConfig(
    weight_decay=1e-3,
    ema_decay=0.995,
    max_grad_norm=1.0,
    log_every=400,
    save_every=2_000,
    preview_every=0,
)
CALM_DETAIL = JointFlowOptions(detail_noise=0.5)
"""Calmer layouts and sound that leads are measured on rendered scenes alone."""


def scenes() -> JointFlowConfig:
    """Return the settings for rendered scenes: 64 px, 16 frames/s, 2 s, 16 kHz."""
    return JointFlowConfig(
        clip=ClipSpec(num_frames=32, height=64, width=64, frame_rate=Fraction(16)),
        video=VideoStage(
            encoder=VideoEncoderConfig(height=64, width=64, motion_weight=2.0),
            train=replace(
                CODEC_TRAIN,
                total_samples=56_000,
                global_batch_size=4,
                micro_batch_size=4,
                learning_rate=1e-3,
                warmup_samples=400,
                decay_samples=32_000,
            ),
        ),
        audio=AudioStage(
            train=replace(
                CODEC_TRAIN,
                total_samples=298_000,
                global_batch_size=8,
                micro_batch_size=8,
                learning_rate=8e-4,
                warmup_samples=800,
                decay_samples=160_000,
            )
        ),
        transformer=TransformerStage(
            train=TrainConfig(
                total_samples=400_000,
                global_batch_size=32,
                micro_batch_size=32,
                optimizer="muon",
                learning_rate=1.5e-3,
                weight_decay=0.01,
                warmup_samples=2_400,
                decay_samples=180_000,
                ema_decay=0.999,
                max_grad_norm=1.0,
                log_every=1_600,
                save_every=8_000,
                preview_every=16_000,
            )
        ),
        sampling=JointFlowOptions(sound_lead=0.5, detail_noise=0.7, layout_noise=0.1),
    )


def small() -> JointFlowConfig:
    """Return settings for a folder of one's own clips, on two CPU cores: 64 px.

    What they give is measured in docs/training.md ("Two hours, codecs and all").
    """

    def shortened(stage: TrainConfig, total: int, decay: int) -> TrainConfig:
        return replace(stage, total_samples=total, decay_samples=decay)

    base = scenes()
    video, audio, transformer = base.video, base.audio, base.transformer
    quick = replace(transformer.train, warmup_samples=960, ema_decay=0.995)
    return replace(
        base,
        video=replace(video, train=shortened(video.train, 24_000, 14_000)),
        audio=replace(audio, train=shortened(audio.train, 40_000, 24_000)),
        transformer=replace(transformer, train=shortened(quick, 64_000, 32_000)),
        sampling=CALM_DETAIL,
    )


def medium() -> JointFlowConfig:
    """Return settings for a folder of one's own clips, on one GPU: 128 px."""
    base, own = scenes(), JointFlowConfig()
    sizes = TransformerSizes(width=320, depth=8, hidden=832)
    return replace(
        base,
        clip=own.clip,
        video=replace(own.video, train=base.video.train),
        transformer=replace(base.transformer, sizes=sizes),
        sampling=CALM_DETAIL,
    )


def large() -> JointFlowConfig:
    """Return the settings of a large model: 256 px, 16 frames/s, 4 s, 24 kHz; for GPUs."""
    base = scenes()
    codec_samples = {"total_samples": 400_000, "decay_samples": 160_000}
    return replace(
        base,
        clip=ClipSpec(
            num_frames=64, height=256, width=256, frame_rate=Fraction(16), sample_rate=24_000
        ),
        video=VideoStage(
            encoder=VideoEncoderConfig(height=256, width=256, layout_cell=16, motion_weight=2.0),
            decoder=VideoDecoderConfig(widths=(512, 256, 128), depths=(4, 4, 4)),
            train=replace(base.video.train, **codec_samples),
        ),
        audio=AudioStage(
            codec=AudioCodecConfig(
                sample_rate=24_000,
                samples_per_latent=1500,
                hop_length=375,
                fft_size=1500,
                latent_dim=64,
                encoder_width=512,
                decoder_width=640,
                encoder_depth=(4, 4),
                decoder_depth=(4, 8),
            ),
            train=replace(base.audio.train, **codec_samples),
        ),
        transformer=TransformerStage(
            sizes=TransformerSizes(width=1024, depth=20, hidden=2688, num_heads=16),
            train=replace(
                base.transformer.train,
                total_samples=25_600_000,
                global_batch_size=256,
                micro_batch_size=16,
                learning_rate=4e-4,
                decay_samples=5_000_000,
            ),
        ),
        sampling=CALM_DETAIL,
    )


def tiny() -> JointFlowConfig:
    """Return settings that train all stages within a minute on two CPU cores; for tests."""
    train = replace(
        CODEC_TRAIN,
        total_samples=64,
        global_batch_size=4,
        micro_batch_size=4,
        learning_rate=2e-3,
        weight_decay=0.0,
        ema_decay=0.9,
        log_every=16,
        save_every=32,
    )
    return JointFlowConfig(
        clip=ClipSpec(num_frames=8, height=32, width=32, frame_rate=Fraction(10)),
        video=VideoStage(
            encoder=VideoEncoderConfig(
                height=32, width=32, patch_size=8, layout_cell=4, detail_dim=4
            ),
            decoder=VideoDecoderConfig(widths=(16, 12, 8), depths=(1, 1, 1)),
            train=train,
            fit_clips=64,
            fit_patch_stride=1,
            num_groups=3,
        ),
        audio=AudioStage(
            codec=AudioCodecConfig(
                samples_per_latent=1600,
                hop_length=400,
                fft_size=1600,
                num_mels=40,
                latent_dim=8,
                encoder_width=32,
                decoder_width=32,
                encoder_depth=(1, 1),
                decoder_depth=(1, 1),
                noise_channels=2,
            ),
            loss=AudioLossConfig(windows=(256, 512), num_mels=40),
            train=train,
            num_frames=8,
        ),
        transformer=TransformerStage(
            sizes=TransformerSizes(width=32, depth=2, hidden=64, num_heads=2),
            train=replace(train, precision="auto", total_samples=128, preview_every=128),
            watch_clips=32,
        ),
        preview=PreviewConfig(count=1, num_steps=2),
    )
