"""Budgets in epochs follow the data set at hand; given samples override them."""

from dataclasses import dataclass, field, replace

import pytest

from soundreel.config import PreviewConfig
from soundreel.errors import SoundreelError
from soundreel.systems import preset
from soundreel.training.epochs import in_samples
from soundreel.training.loop import TrainConfig


@dataclass(frozen=True)
class Part:
    train: TrainConfig = field(default_factory=lambda: TrainConfig(total_samples=0, epochs=2.5))


@dataclass(frozen=True)
class Whole:
    part: Part = field(default_factory=Part)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(total_samples=7, epochs=3.0))


def test_epochs_are_counted_in_windows_at_any_depth():
    counted = in_samples(Whole(), 101)
    assert counted.part.train.total_samples == 252
    assert counted.train.total_samples == 7, "a number given overrides epochs"
    assert counted.part.train.epochs == 2.5
    assert in_samples(counted, 999) == counted


def test_the_published_epochs_of_mm_ldm():
    aist = in_samples(preset("mm-ldm-aist"), 156_060)
    assert aist.autoencoder.train.total_samples == 10 * 156_060
    assert aist.generator.train.total_samples == 100 * 156_060
    landscape = preset("mm-ldm-landscape")
    assert landscape.generator.train.epochs == 300
    shorter = replace(landscape.generator.train, total_samples=1000)
    assert in_samples(shorter, 85_120).total_samples == 1000


def test_mm_diffusions_budgets_are_the_published_steps_times_the_published_batch():
    for name in ("landscape", "aist", "audioset"):
        assert preset(f"mm-diffusion-{name}").train.total_samples == 100_000 * 128


def test_negative_seeds_and_previews_of_nothing_are_refused():
    with pytest.raises(SoundreelError, match="seed must not be negative, got -1"):
        TrainConfig(seed=-1)
    for wrong in ({"count": 0}, {"num_steps": 0}):
        with pytest.raises(SoundreelError, match=r"preview\.\w+ must be at least 1, got 0"):
            PreviewConfig(**wrong)


@pytest.mark.parametrize("wrong", [{"total_samples": 0}, {"total_samples": -1}, {"epochs": -1.0}])
def test_no_budget_is_refused(wrong):
    with pytest.raises(SoundreelError, match="total_samples must be positive"):
        TrainConfig(**wrong)
