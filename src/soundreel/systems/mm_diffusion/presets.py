"""Presets of the Coupled U-Net: the published settings, and two sizes for small machines."""

from soundreel.config import DataConfig, PreviewConfig
from soundreel.diffusion.config import DiffusionConfig
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNetConfig
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec


def landscape() -> MMDiffusionConfig:
    """Return the published model: 64x64 at 10 fps, 16 kHz; 128 clips a step for 100,000 steps.

    Source:
        Ruan et al. 2023, supplement, Table 1.
    """
    return MMDiffusionConfig()


def aist() -> MMDiffusionConfig:
    """Return the published settings for AIST++, which are those for Landscape."""
    return landscape()


def audioset() -> MMDiffusionConfig:
    """Return the published open-domain model: base width 256, "other settings unchanged".

    So it sees as many clips as the others, 12.8 million: of 20,000 videos of 10 s at stride 1 (85
    windows each) some seven times every window.

    Source:
        Ruan et al. 2023, supplement, section 3.1.
    """
    return MMDiffusionConfig(unet=CoupledUNetConfig(width=256))


def small() -> MMDiffusionConfig:
    """Return a preset for two CPU cores: 32x32, width 16, one block a level, attention from
    factor 4 on.

    At this size half the time goes into attention over many tokens in few channels, so the level
    below full resolution has none, and one head serves all channels.
    """
    return MMDiffusionConfig(
        clip=ClipSpec(height=32, width=32),
        unet=CoupledUNetConfig(
            width=16,
            channel_mult=(1, 2, 4, 8),
            num_res_blocks=1,
            video_attention_factors=(4, 8),
            cross_attention_factors=(4, 8),
            cross_attention_windows=(4, 8),
            num_heads=1,
            num_groups=16,
            dropout=0.0,
        ),
        train=TrainConfig(
            total_samples=40_000,
            global_batch_size=4,
            micro_batch_size=4,
            learning_rate=4e-4,
            warmup_samples=400,
            ema_decay=0.998,
            max_grad_norm=1.0,
            log_every=160,
            save_every=800,
            preview_every=4_000,
        ),
    )


def tiny() -> MMDiffusionConfig:
    """Return a preset that trains in a minute or two on two CPU cores; for tests and the first
    look.

    It estimates the clean clip, not the noise: where there is much noise, a small error in the
    noise is a large one in the clip, and so short a training leaves nothing but that.
    """
    return MMDiffusionConfig(
        clip=ClipSpec(height=32, width=32),
        unet=CoupledUNetConfig(
            width=8,
            channel_mult=(1, 2, 4, 8),
            num_res_blocks=1,
            video_attention_factors=(4, 8),
            cross_attention_factors=(4, 8),
            cross_attention_windows=(4, 8),
            num_heads=1,
            cross_head_width=32,
            num_groups=8,
            dropout=0.0,
        ),
        diffusion=DiffusionConfig(prediction_type="x0"),
        data=DataConfig(stride=2),
        train=TrainConfig(
            total_samples=480,
            global_batch_size=4,
            micro_batch_size=4,
            learning_rate=2e-3,
            warmup_samples=40,
            ema_decay=0.95,
            max_grad_norm=1.0,
            log_every=40,
            save_every=240,
            preview_every=240,
        ),
        preview=PreviewConfig(count=2, num_steps=10),
    )
