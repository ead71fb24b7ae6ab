"""The contrastive sync network learns clips and times it has not seen."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from soundreel.data.scenes.render import RenderOptions, render_clip
from soundreel.metrics.sync.contrastive import (
    ContrastiveConfig,
    ContrastiveSync,
    fit,
    pair_features,
    retrieval_accuracy,
)
from soundreel.metrics.sync.signals import SyncError

KINDS = ("bells", "hammer", "fireworks", "water_drops")
OPTIONS = RenderOptions(
    num_frames=48, height=32, width=32, frame_rate=Fraction(16), sample_rate=8_000, kinds=KINDS
)
CONFIG = ContrastiveConfig(num_steps=120, max_lag=6)


def features(seed, count):
    clips = []
    for index in range(count):
        clip = render_clip(OPTIONS, seed, index)
        clips.append(pair_features(clip.frames, Fraction(16), clip.waveform, 8_000))
    return clips


@pytest.fixture(scope="module")
def trained():
    return fit(features(0, 48), CONFIG, torch.Generator().manual_seed(0)), features(1, 16)


def test_held_out_sounds_are_found_by_their_pictures(trained):
    network, held_out = trained
    assert retrieval_accuracy(network.agreement(held_out)) >= 5 / 16  # chance is 1 / 16


def test_the_offset_curve_of_held_out_clips_peaks_at_zero(trained):
    network, held_out = trained
    curve = network.offset_curve(held_out)
    assert curve.shape == (16, 13)
    assert int(curve.mean(dim=0).argmax()) == CONFIG.max_lag
    assert float((curve.argmax(dim=1) - CONFIG.max_lag).abs().le(1).double().mean()) >= 0.7


def test_a_delayed_sound_moves_the_peak_by_its_delay(trained):
    network, held_out = trained
    delayed = [type(c)(picture=c.picture, sound=c.sound.roll(3, dims=1)) for c in held_out]
    curve = network.offset_curve(delayed).mean(dim=0)
    assert int(curve.argmax()) == CONFIG.max_lag + 3


def test_an_untrained_network_knows_nothing(trained):
    _, held_out = trained
    torch.manual_seed(0)
    network = ContrastiveSync(CONFIG)
    assert retrieval_accuracy(network.agreement(held_out)) < 4 / 16


def test_training_repeats_with_its_seed_and_needs_a_batch():
    clips = features(2, 16)
    short = ContrastiveConfig(num_steps=3)
    first, again = (fit(clips, short, torch.Generator().manual_seed(5)) for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="at least 16 clips, got 3"):
        fit(clips[:3], short, torch.Generator())


def test_short_clips_are_refused():
    with pytest.raises(SyncError, match="at least 1 s"):
        pair_features(
            np.zeros((8, 16, 16, 3), np.uint8),
            Fraction(16),
            np.zeros((1, 4000), np.float32),
            8_000,
        )
