"""Presets of the super-resolution stage: the published network, and one for two CPU cores."""

from soundreel.config import DataConfig, PreviewConfig
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.degradation import DegradationConfig
from soundreel.systems.super_resolution.network import SuperResolutionConfig
from soundreel.training.loop import TrainConfig


def super_resolution() -> SuperResolutionRunConfig:
    """Return the published 64-to-256 network: 48 frames a step for 270,000 steps.

    The supplement states a dropout of 0.1 and flips; the published code uses neither. Flips are on
    here, dropout is not.

    Source:
        Ruan et al. 2023, supplement, Table 1.
    """
    return SuperResolutionRunConfig(
        data=DataConfig(flip_probability=0.5),
        train=TrainConfig(
            total_samples=270_000 * 48,
            global_batch_size=48,
            micro_batch_size=6,
            checkpoint_activations=True,
            log_every=4_800,
            save_every=240_000,
            preview_every=240_000,
        ),
        preview=PreviewConfig(count=4, num_steps=25),
    )


def small() -> SuperResolutionRunConfig:
    """Return a preset for 32 to 128 pixels, 3.0 M parameters, 5.1 GFLOP per frame and step; for
    two CPU cores.

    It makes the difference from bicubic enlargement and estimates v. The published network makes
    the picture itself and estimates its noise: then all of a short training goes into what
    enlargement gives for nothing.
    """
    return SuperResolutionRunConfig(
        network=SuperResolutionConfig(
            low_res_size=32,
            size=128,
            width=16,
            channel_mult=(1, 2, 4, 8),
            num_res_blocks=1,
            attention_factors=(8,),
            num_groups=16,
            prediction_type="v",
            residual_scale=6.0,
            learned_variance=False,
        ),
        degradation=DegradationConfig(low_res_size=32),
        data=DataConfig(flip_probability=0.5),
        train=TrainConfig(
            total_samples=32_000,
            global_batch_size=8,
            micro_batch_size=8,
            learning_rate=5e-4,
            warmup_samples=400,
            ema_decay=0.99,
            max_grad_norm=1.0,
            log_every=320,
            save_every=1_600,
            preview_every=4_000,
        ),
        preview=PreviewConfig(count=4, num_steps=10),
    )
