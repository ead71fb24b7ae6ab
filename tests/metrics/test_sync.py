"""Sync metrics on clips whose truth is known: flashes with clicks, rendered scenes, noise."""

from fractions import Fraction

import numpy as np
import pytest

from soundreel.data.scenes.render import DISCRETE_KINDS, KINDS, RenderOptions, render_clip
from soundreel.metrics.sync.calibration import auroc, auroc_interval, cut_pair
from soundreel.metrics.sync.events import match_events
from soundreel.metrics.sync.score import Sync, measure_sync, summarise
from soundreel.metrics.sync.signals import (
    SyncError,
    detect_motion_peaks,
    detect_onsets,
    motion_curves,
    sound_curves,
)

RATE = Fraction(25)
SAMPLE_RATE = 16_000


def clicks(times_s, duration_s=4.0, seed=0):
    """Decaying noise bursts over a faint floor of noise."""
    rng = np.random.default_rng(seed)
    wave = 1e-3 * rng.standard_normal(int(duration_s * SAMPLE_RATE))
    for time in times_s:
        start = int(np.ceil(time * SAMPLE_RATE))
        age = np.arange(len(wave) - start) / SAMPLE_RATE
        wave[start:] += 0.5 * np.exp(-age / 0.03) * rng.standard_normal(len(age))
    return np.clip(wave, -1, 1).astype(np.float32)[None]


def flashes(times_s, duration_s=4.0):
    """A patch that lights up at each time and fades."""
    frames = np.full((int(duration_s * RATE), 32, 32, 3), 40, np.uint8)
    for k in range(len(frames)):
        ages = [float(k / RATE) - t for t in times_s if t <= float(k / RATE)]
        if ages:
            frames[k, 8:20, 8:20] = 40 + 200 * np.exp(-min(ages) / 0.15)
    return frames


IRREGULAR = [0.31, 0.9, 1.17, 1.95, 2.3, 3.11, 3.44]


def test_onsets_of_clicks_are_found_to_a_few_milliseconds():
    found = detect_onsets(clicks(IRREGULAR), SAMPLE_RATE)
    assert len(found) == len(IRREGULAR)
    assert np.abs(np.array(found) - IRREGULAR).max() < 0.008
    assert abs(np.mean(np.array(found) - IRREGULAR)) < 0.004


def test_motion_peaks_of_flashes_are_found_to_half_a_frame():
    found = detect_motion_peaks(flashes(IRREGULAR), RATE)
    assert len(found) == len(IRREGULAR)
    assert np.abs(np.array(found) - IRREGULAR).max() <= 0.5 / 25 + 1e-9


@pytest.mark.parametrize("offset_s", [-0.3, -0.12, 0.0, 0.07, 0.31])
def test_offset_is_recovered_with_its_sign(offset_s):
    late = clicks([t + offset_s for t in IRREGULAR])
    result = measure_sync(flashes(IRREGULAR), RATE, late, SAMPLE_RATE)
    assert result.offset_s == pytest.approx(offset_s, abs=0.02)
    assert not result.is_ambiguous
    if abs(offset_s) > 0.1:
        assert result.score < 2
    if offset_s == 0:
        assert result.score > 5
        assert result.p_value < 0.02


def test_a_regular_beat_is_reported_as_ambiguous():
    times = [0.1 + 0.4 * k for k in range(10)]
    result = measure_sync(flashes(times), RATE, clicks(times), SAMPLE_RATE)
    assert result.is_ambiguous
    assert result.offset_s == pytest.approx(0, abs=0.02)


def test_chance_scores_nothing_and_its_p_values_are_spread():
    rng = np.random.default_rng(0)
    scores, p_values = [], []
    for _ in range(60):
        seen, heard = (np.sort(rng.uniform(0.1, 3.9, 7)) for _ in range(2))
        result = measure_sync(flashes(seen), RATE, clicks(heard), SAMPLE_RATE)
        scores.append(result.score)
        p_values.append(result.p_value)
    assert abs(np.mean(scores)) < 0.4
    assert 0.3 < np.mean(p_values) < 0.7
    assert np.mean(np.array(p_values) <= 0.05) < 0.18


def test_busy_noise_scores_nothing():
    rng = np.random.default_rng(1)
    busy = clicks(np.arange(0.05, 1.95, 0.09) + rng.uniform(0, 0.03, 22), duration_s=2.0)
    options = RenderOptions(num_frames=50, height=32, width=32, frame_rate=RATE, kinds=("rain",))
    frames = render_clip(options, 3, 0).frames
    assert abs(measure_sync(frames, RATE, busy, SAMPLE_RATE).score) < 2.5


def test_short_clips_at_a_low_rate_can_still_be_significant():
    rate = Fraction(10)
    times = [0.21, 0.57, 1.18]
    frames = np.stack([flashes(times, 2.0)[int(2.5 * k)] for k in range(16)])
    result = measure_sync(frames, rate, clicks(times, 1.6), SAMPLE_RATE)
    assert result.p_value <= 0.05
    wrong = measure_sync(frames, rate, clicks([t + 0.3 for t in times], 1.6), SAMPLE_RATE)
    assert wrong.p_value > 0.1


def test_silence_and_stillness_score_as_chance():
    still = np.full((100, 32, 32, 3), 80, np.uint8)
    silent = np.zeros((1, 64_000), np.float32)
    for frames, wave in ((still, clicks(IRREGULAR)), (flashes(IRREGULAR), silent)):
        result = measure_sync(frames, RATE, wave, SAMPLE_RATE)
        assert (result.score, result.p_value, result.offset_s) == (0.0, 1.0, None)


@pytest.mark.parametrize(
    ("num_frames", "frame_rate", "sample_rate", "message"),
    [
        (20, 25, 16_000, r"at least 1 s .* got 0.80 s"),
        (100, 5, 16_000, "at least 8 frames a second, got 5"),
        (100, 25, 4_000, "8000 Hz or more"),
    ],
)
def test_clips_that_cannot_be_measured_are_refused(num_frames, frame_rate, sample_rate, message):
    frames = np.zeros((num_frames, 8, 8, 3), np.uint8)
    wave = np.zeros((1, num_frames * sample_rate // frame_rate), np.float32)
    with pytest.raises(SyncError, match=message):
        measure_sync(frames, Fraction(frame_rate), wave, sample_rate)


def test_early_and_late_clips_do_not_cancel_in_the_summary():
    def result(offset_s):
        return Sync(
            score=1.0,
            p_value=0.5,
            correlation=0.1,
            offset_s=offset_s,
            offset_correlation=0.5,
            offset_p_value=0.5,
            is_ambiguous=False,
        )

    summary = summarise([result(-0.2), result(0.2), result(None)])
    assert summary.mean_absolute_offset_s == pytest.approx(0.2)
    assert summary.median_offset_s == pytest.approx(0.0)
    assert summary.num_clips == 3
    with pytest.raises(ValueError, match="no clip"):
        summarise([])


def true_and_shifted(kinds, count, seed):
    options = RenderOptions(
        num_frames=125, height=48, width=48, frame_rate=RATE, kinds=kinds, thunder_delay_s=0.0
    )
    true, late, offsets = [], [], []
    for index in range(count):
        clip = render_clip(options, seed, index)
        pairs = [cut_pair(clip.frames, clip.waveform, RATE, SAMPLE_RATE, 4.0, s) for s in (0, 0.3)]
        results = [measure_sync(f, RATE, w, SAMPLE_RATE) for f, w in pairs]
        true.append(results[0].score)
        late.append(results[1].score)
        offsets.append(results[0].offset_s)
    return true, late, np.array(offsets)


def test_shifted_sound_is_told_from_true_sound_on_rendered_events():
    true, late, offsets = true_and_shifted(DISCRETE_KINDS, 14, seed=77)
    assert auroc(true, late) >= 0.95
    assert np.mean(np.abs(offsets) <= 1 / 25) >= 0.9


@pytest.mark.slow
def test_calibration_on_all_rendered_scenes():
    true, late, _ = true_and_shifted(tuple(KINDS), 88, seed=5)
    assert auroc(true, late) >= 0.93
    true, late, offsets = true_and_shifted(DISCRETE_KINDS, 70, seed=6)
    assert auroc(true, late) >= 0.95
    assert np.mean(np.abs(offsets) <= 1 / 25) >= 0.9


def test_events_are_matched_one_to_one():
    match = match_events([1.0, 2.0, 3.0], [1.02, 1.04, 2.5, 2.97], tolerance_s=0.1)
    assert match.num_matched == 2
    assert match.precision == pytest.approx(0.5)
    assert match.recall == pytest.approx(2 / 3)
    assert match.f1 == pytest.approx(4 / 7)
    assert match.mean_absolute_error_s == pytest.approx(0.025)
    assert match.bias_s == pytest.approx(-0.005)
    nothing = match_events([1.0], [], tolerance_s=0.1)
    assert (nothing.precision, nothing.recall, nothing.f1) == (1.0, 0.0, 0.0)
    assert np.isnan(nothing.bias_s)
    with pytest.raises(ValueError, match="tolerance_s"):
        match_events([1.0], [1.0], tolerance_s=0.0)


def test_auroc_counts_pairs_and_its_interval_encloses_it():
    assert auroc([3, 2], [1, 2]) == pytest.approx(3.5 / 4)
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(1, 1, 60), rng.normal(0, 1, 60)
    low, high = auroc_interval(positive, negative, np.random.default_rng(1))
    assert low < auroc(positive, negative) < high
    assert high - low < 0.25
    with pytest.raises(ValueError, match="both kinds"):
        auroc([], [1.0])


def test_shifted_pairs_are_real_content_throughout():
    clip = render_clip(RenderOptions(num_frames=50, frame_rate=RATE, kinds=("rain",)), 0, 0)
    frames, wave = cut_pair(clip.frames, clip.waveform, RATE, SAMPLE_RATE, 1.5, 0.3)
    assert len(frames) == 38
    assert np.array_equal(wave, clip.waveform[:, 4800 : 4800 + wave.shape[1]])
    with pytest.raises(ValueError, match=r"no 2.0 s of sound from 0.3 s on"):
        cut_pair(clip.frames, clip.waveform, RATE, SAMPLE_RATE, 2.0, 0.3)


def test_unrelated_pairs_give_no_evidence_of_an_offset():
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(60):
        seen, heard = (np.sort(rng.uniform(0.1, 3.9, 7)) for _ in range(2))
        found = measure_sync(flashes(seen), RATE, clicks(heard), SAMPLE_RATE)
        p_values.append(found.offset_p_value)
        assert ("s late" in found.in_words()) <= (found.offset_p_value <= 0.05)
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15
    assert 0.3 < np.mean(p_values) < 0.7


def test_a_shift_that_is_more_than_chance_is_told_with_its_evidence():
    late = measure_sync(flashes(IRREGULAR), RATE, clicks([t + 0.2 for t in IRREGULAR]), SAMPLE_RATE)
    assert late.p_value > 0.05
    assert late.offset_p_value <= 0.02
    assert late.has_evidence
    assert "sound 0.20 s late" in late.in_words()
    times = [0.1 + 0.4 * k for k in range(10)]
    beat = measure_sync(flashes(times), RATE, clicks([t + 0.1 for t in times]), SAMPLE_RATE)
    assert not beat.has_evidence


def test_curves_are_the_same_from_pieces_of_any_length():
    frames, wave = flashes(IRREGULAR), clicks(IRREGULAR)
    stereo = np.concatenate([wave, 0.5 * wave])
    whole = sound_curves(stereo, SAMPLE_RATE)
    for cuts in ([1], [200, 201, 5000], list(range(0, 64_000, 999))):
        pieces = sound_curves(iter(np.split(stereo, cuts, axis=1)), SAMPLE_RATE)
        assert np.allclose(pieces.flux, whole.flux, atol=1e-4)
        assert np.allclose(pieces.power, whole.power, rtol=1e-5)
    assert len(whole.flux) == 800
    large = frames.repeat(30, axis=1).repeat(30, axis=2)  # a few at a time
    streamed = motion_curves(iter(large))
    assert np.allclose(streamed.flux, motion_curves(frames).flux, rtol=1e-4, atol=1e-4)


def test_the_ends_of_the_sound_are_mirrored():
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, (1, 16_000)).astype(np.float32)
    size = 512
    padded = np.pad(wave[0], size // 2, mode="reflect")
    power = np.abs(np.fft.rfft(padded[:size] * np.hanning(size))) ** 2 / size
    last = np.abs(np.fft.rfft(padded[15_920 : 15_920 + size] * np.hanning(size))) ** 2 / size
    found = sound_curves(wave, SAMPLE_RATE).power
    hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    inner = (hz > 150) & (hz < 6900)  # where the bands add up to 1
    assert found[0] == pytest.approx(power[inner].sum(), rel=0.1)
    assert found[199] == pytest.approx(last[inner].sum(), rel=0.1)
