"""Presets of MM-LDM for long video: other presets with the phase `long` after the generator."""

from dataclasses import replace

from soundreel.systems.mm_ldm.config import LongRun, MMLDMConfig
from soundreel.systems.mm_ldm.presets import aist, landscape
from soundreel.systems.mm_ldm.small_presets import scenes, small
from soundreel.systems.mm_ldm.tiny_preset import tiny


def long() -> MMLDMConfig:
    """Return the published settings for AIST++: 14 blocks, 40 epochs.

    Source:
        MM-LDM, appendix 1.6; depth, rate, batch and epochs from its release.
    """
    return _published(aist())


def long_landscape() -> MMLDMConfig:
    """Return those settings for Landscape, for which no others are published."""
    return _published(landscape())


def _published(base: MMLDMConfig) -> MMLDMConfig:
    train = replace(
        base.generator.train,
        total_samples=0,
        epochs=40.0,
        global_batch_size=96,
        micro_batch_size=12,
        learning_rate=1e-5,
    )
    return replace(base, long=LongRun(enabled=True, train=train))


def long_small() -> MMLDMConfig:
    """Return `small` for long video; windows share two of their sixteen frames, so that borders
    can be faded."""
    base = small()
    train = replace(base.generator.train, total_samples=80_000, learning_rate=2e-4)
    return replace(
        base,
        sampling=replace(base.sampling, history_guidance=False),
        long=LongRun(enabled=True, history_depth=4, overlap=2, train=train),
    )


def long_scenes() -> MMLDMConfig:
    """Return `scenes` for long video, to start from a model of it: half an hour of one core."""
    base = scenes()
    train = replace(
        base.generator.train,
        total_samples=17_000,
        global_batch_size=32,
        micro_batch_size=32,
        learning_rate=2e-4,
        warmup_samples=0,
        decay_samples=8_000,
        ema_decay=0.995,
        max_grad_norm=0.0,
        log_every=640,
        save_every=4_000,
        preview_every=17_000,
    )
    return replace(
        base,
        data=replace(base.data, stride=2),
        sampling=replace(base.sampling, history_guidance=False),
        long=LongRun(enabled=True, history_depth=4, overlap=2, train=train),
    )


def long_tiny() -> MMLDMConfig:
    """Return `tiny` for long video; windows share half of their frames."""
    base = tiny()
    return replace(
        base,
        sampling=replace(base.sampling, history_guidance=False),
        long=LongRun(enabled=True, history_depth=1, overlap=4, train=base.generator.train),
    )
