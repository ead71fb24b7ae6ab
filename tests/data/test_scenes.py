"""Rendered scenes: the truth beside a clip is what is seen and heard in it."""

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from soundreel.data.scenes.canvas import Canvas
from soundreel.data.scenes.render import (
    DISCRETE_KINDS,
    KINDS,
    RenderOptions,
    render_clip,
    render_clips,
)
from soundreel.data.scenes.scene import DiscreteScene, Event
from soundreel.data.scenes.sound import Sound

SMALL = RenderOptions(height=32, width=32)


def only(kind, **changes):
    return replace(SMALL, kinds=(kind,), **changes)


def onset_near(waveform, sample_rate, time_s, reach_s=0.06):
    """Time of the steepest rise of the spectrum around a moment, and how it stands out."""
    window, hop = 256, 32
    frames = np.lib.stride_tricks.sliding_window_view(waveform, window)[::hop] * np.hanning(window)
    spectrum = np.log1p(100 * np.abs(np.fft.rfft(frames, axis=1)))
    lag = 4
    rise = np.maximum(spectrum[lag:] - spectrum[:-lag], 0).sum(axis=1)
    times = ((np.arange(len(rise)) + lag) * hop + window / 2) / sample_rate
    near = np.abs(times - time_s) < reach_s
    return times[near][rise[near].argmax()], rise[near].max() / (np.median(rise) + 1e-9)


def test_there_are_at_least_nine_kinds_and_six_are_discrete():
    assert len(KINDS) >= 9
    assert set(DISCRETE_KINDS) < set(KINDS)
    assert len(DISCRETE_KINDS) >= 6


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_moves_and_sounds_and_states_its_truth(kind):
    clip = render_clip(only(kind), 5, 0)
    assert clip.frames.shape == (16, 32, 32, 3)
    assert clip.waveform.shape == (1, 25_600)
    assert np.abs(clip.waveform).max() <= 0.9 + 1e-6
    assert 0.02 < np.sqrt(np.mean(clip.waveform**2)) < 0.35
    assert np.abs(np.diff(clip.frames.astype(int), axis=0)).mean() > 0.1
    assert clip.frames.std() > 10
    assert clip.label == list(KINDS).index(kind)
    truth = json.loads(json.dumps(clip.truth()))
    assert truth["kind"] == kind
    assert len(truth["activity"]) == 160
    assert all(0 <= e["time_s"] < 1.6 for e in truth["events"])
    assert [e["time_s"] for e in truth["events"]] == sorted(e["time_s"] for e in truth["events"])


@pytest.mark.parametrize("kind", DISCRETE_KINDS)
def test_sounds_start_when_the_truth_says(kind):
    errors, found = [], 0
    for seed in range(4):
        clip = render_clip(only(kind, num_frames=30, height=8, width=8), seed, 0)
        for event in clip.events:
            if event.is_audible and 0.1 < event.time_s < 2.8:
                time, prominence = onset_near(clip.waveform[0], 16_000, event.time_s)
                errors.append(time - event.time_s)
                found += prominence > 3
    assert len(errors) >= 8
    assert np.quantile(np.abs(errors), 0.9) < 0.02
    assert found / len(errors) > 0.85


@pytest.mark.parametrize("kind", DISCRETE_KINDS)
def test_the_picture_changes_most_right_after_visible_events(kind):
    near, far = [], []
    for seed in range(4):
        options = only(kind, num_frames=50, frame_rate=Fraction(25))
        clip = render_clip(options, seed, 0)
        change = np.abs(np.diff(clip.frames.astype(float), axis=0)).mean(axis=(1, 2, 3))
        for k, amount in enumerate(change):  # between the frames at k/25 and (k+1)/25
            seen = [e.time_s for e in clip.events if e.is_visible]
            is_near = any(k / 25 < t <= (k + 1) / 25 for t in seen)
            (near if is_near else far).append(amount)
    assert np.mean(near) > 1.15 * np.mean(far)


def test_larger_balls_sound_lower_and_harder_impacts_louder():
    rows = []
    for seed in range(40):
        clip = render_clip(only("bouncing_balls", height=8, width=8), seed, 0)
        if clip.parameters["num_balls"] == 1:
            for e in clip.events:
                start = int(e.time_s * 16_000)
                piece = clip.waveform[0, start : start + 1600]
                if len(piece) == 1600:
                    spectrum = np.abs(np.fft.rfft(piece * np.hanning(1600), 16_384))
                    heard = spectrum.argmax() * 16_000 / 16_384
                    rows.append((e.pitch_hz, heard, e.strength, np.abs(piece[:400]).max()))
    pitch, heard, strength, loudness = np.array(rows).T
    assert len(rows) > 20
    assert np.median(np.abs(np.log2(pitch / heard))) < 0.1
    assert pitch.max() > 1.4 * pitch.min()
    assert np.corrcoef(strength, loudness)[0, 1] > 0.8


def test_thunder_follows_lightning_by_the_chosen_delay():
    for delay in (0.1, 0.4):
        clip = render_clip(only("lightning", thunder_delay_s=delay, num_frames=40), 1, 0)
        flashes = [e.time_s for e in clip.events if e.kind == "flash"]
        thunder = [e.time_s for e in clip.events if e.kind == "thunder"]
        assert flashes
        for time in flashes:
            if time + delay < 4:
                assert min(abs(time + delay - t) for t in thunder) < 1e-9
        assert clip.parameters["thunder_delay_s"] == delay


@pytest.mark.parametrize("kind", ["rain", "waves", "fire"])
def test_loudness_of_continuous_scenes_follows_their_activity(kind):
    correlations = []
    for seed in range(5):
        clip = render_clip(only(kind, num_frames=40, height=8, width=8), seed, 0)
        power = (clip.waveform[0].reshape(-1, 1600) ** 2).mean(axis=1)
        activity = clip.activity.reshape(-1, 10).mean(axis=1)
        correlations.append(np.corrcoef(np.log(power), activity)[0, 1])
    assert np.median(correlations) > (0.4 if kind == "fire" else 0.75)


def test_pitch_of_the_engine_follows_its_wheel():
    clip = render_clip(only("engine", num_frames=40, height=8, width=8), 2, 0)
    low, high = clip.parameters["turns_per_s"]
    firings = clip.parameters["firings_per_turn"]
    for k in range(2, 38, 5):
        window = slice(k * 1600 - 1200, k * 1600 + 1200)
        piece = clip.waveform[0, window] * np.hanning(2400)
        expected = firings * (low + (high - low) * clip.activity[10 * k])
        correlation = np.fft.irfft(np.abs(np.fft.rfft(piece, 8192)) ** 2)
        lags = np.arange(int(16_000 / (1.3 * expected)), int(16_000 / (0.75 * expected)))
        heard = 16_000 / lags[correlation[lags].argmax()]
        assert heard == pytest.approx(expected, rel=0.12)


def test_a_clip_depends_on_its_seed_and_index_alone():
    first = render_clip(SMALL, 3, 7)
    again = render_clip(SMALL, 3, 7)
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.waveform, again.waveform)
    assert first.truth() == again.truth()
    other = render_clip(SMALL, 4, 7)
    assert not np.array_equal(first.frames, other.frames)


def test_size_and_frame_rate_do_not_change_the_scene():
    base = render_clip(SMALL, 0, 1)
    large = render_clip(replace(SMALL, height=64, width=64), 0, 1)
    fast = render_clip(replace(SMALL, num_frames=40, frame_rate=Fraction(25)), 0, 1)
    assert base.events == large.events == fast.events
    assert np.array_equal(base.waveform, large.waveform)
    assert np.array_equal(base.waveform, fast.waveform)
    shrunk = large.frames.reshape(16, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(shrunk - base.frames).mean() < 4
    assert np.array_equal(base.frames[10], fast.frames[25])  # both show the scene at 1 s


def test_odd_sizes_rates_and_lengths_render():
    options = RenderOptions(
        num_frames=7, height=37, width=90, frame_rate=Fraction(30000, 1001), sample_rate=22_050
    )
    for index in range(len(KINDS)):
        clip = render_clip(options, 0, index)
        assert clip.frames.shape == (7, 37, 90, 3)
        assert clip.waveform.shape == (1, 7 * 22_050 * 1001 // 30_000)


def test_edges_are_antialiased():
    canvas = Canvas(32, 32)
    canvas.disc(0.0, 0.5, 0.25, (1, 1, 1))
    assert canvas.pixels[..., 0].sum() == pytest.approx(np.pi * 8**2, rel=0.01)
    assert ((canvas.pixels > 0.05) & (canvas.pixels < 0.95)).mean() * 10 > 0.1
    moved = Canvas(32, 32)
    moved.disc(0.25 / 32, 0.5, 0.25, (1, 1, 1))  # a quarter of a pixel
    centre = (moved.pixels[..., 0] * np.arange(32)).sum() / moved.pixels[..., 0].sum()
    before = (canvas.pixels[..., 0] * np.arange(32)).sum() / canvas.pixels[..., 0].sum()
    assert centre - before == pytest.approx(0.25, abs=0.02)


def test_small_particles_keep_their_light_at_every_size():
    totals = []
    for size in (32, 64, 256):
        canvas = Canvas(size, size)
        canvas.particles(np.array([0.1]), np.array([0.4]), 0.012, (1, 1, 1))
        totals.append(canvas.pixels.sum() / size**2)
    assert max(totals) < 1.1 * min(totals)


def test_camera_shake_moves_the_whole_picture():
    still = render_clip(only("metronome", height=64, width=64), 0, 0)
    shaken = render_clip(only("metronome", height=64, width=64, camera_shake=0.05), 0, 0)
    corner = (slice(None), slice(0, 8), slice(0, 8))
    assert still.frames[corner].std(axis=0).mean() < 0.5
    floor = (slice(None), slice(50, 60), slice(0, 10))
    assert shaken.frames[floor].std(axis=0).max() > 5
    assert still.events == shaken.events
    assert np.array_equal(still.waveform, shaken.waveform)


def test_distractors_are_seen_but_not_heard_and_offscreen_sounds_the_reverse():
    plain = render_clip(only("bells"), 0, 0)
    distracted = render_clip(only("bells", num_distractors=3), 0, 0)
    assert np.array_equal(plain.waveform, distracted.waveform)
    assert not np.array_equal(plain.frames, distracted.frames)
    noisy = render_clip(only("bells", num_offscreen_sounds=3), 0, 0)
    assert np.array_equal(plain.frames, noisy.frames)
    assert not np.array_equal(plain.waveform, noisy.waveform)
    hidden = [e for e in noisy.events if not e.is_visible]
    assert len(hidden) == 3
    assert all(e.kind.startswith("offscreen") for e in hidden)


def test_grey_pictures_have_no_colour():
    clip = render_clip(only("fireworks", colour="grey"), 0, 0)
    assert np.array_equal(clip.frames[..., 0], clip.frames[..., 2])


def test_workers_give_the_same_clips_in_the_same_order():
    options = replace(SMALL, height=16, width=16, num_frames=4)
    alone = list(render_clips(options, 9, range(5)))
    pooled = list(render_clips(options, 9, range(5), num_workers=2))
    for k, (clip, other) in enumerate(zip(pooled, alone, strict=True)):
        assert clip.index == other.index == k
        assert clip.frames.shape == (4, 16, 16, 3)
        assert np.array_equal(clip.frames, other.frames)
        assert np.array_equal(clip.waveform, other.waveform)


def test_a_mode_starts_between_samples_and_dies_away():
    sound = Sound(4000, 8000, np.random.default_rng(0))
    sound.modes(0.10003, [440.0], [0.02], [1.0])
    assert not sound.wave[:801].any()
    age = 0.02 + np.ceil(0.10003 * 8000) / 8000 - 0.10003
    expected = np.exp(-age / 0.02) * np.sin(2 * np.pi * 440 * age)
    assert sound.wave[int(np.ceil(0.10003 * 8000)) + 160] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ("balls",)}, "no scenes called balls"),
        ({"kinds": ()}, "no scenes called"),
        ({"num_frames": 0}, "num_frames must be positive"),
        ({"camera_shake": 0.5}, "camera_shake"),
        ({"num_distractors": -1}, "cannot be negative"),
        ({"thunder_delay_s": 9.0}, "thunder_delay_s must lie within"),
    ],
)
def test_impossible_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


def test_lightning_in_a_clip_without_time_for_thunder_is_refused():
    options = replace(SMALL, kinds=("lightning",), num_frames=1)
    with pytest.raises(ValueError, match=r"lightning and its thunder need clips of 0.2 s or more"):
        render_clip(options, 0, 0)


def test_rendering_needs_numpy_alone():
    code = (
        "import sys, soundreel.data.scenes.render; "
        "bad = {'torch', 'av', 'PIL', 'scipy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_activity_before_an_event_is_0_however_long_it_takes():
    times = np.arange(0, 120, 0.1)
    level = DiscreteScene(events=[Event(kind="bounce", time_s=100.0, strength=0.5)]).activity(times)
    assert level[:1000].max() == 0
    assert level.max() == pytest.approx(0.5, rel=1e-3)
