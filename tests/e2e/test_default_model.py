"""The model that comes with the package: small enough, complete, and worth looking at.

Its page of six clips is one of the README's commands: tests/e2e/test_readme.py.
"""

import subprocess
import sys
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

import soundreel
from soundreel.clip import Clip
from soundreel.data.scenes.render import KINDS
from soundreel.film import join_clips
from soundreel.metrics.sync.score import sync_of_curves
from soundreel.metrics.sync.signals import motion_curves, sound_curves
from soundreel.systems import DEFAULT_MODEL

FEW = {"num_steps": 6}
SHAPE, SAMPLES_PER_FRAME = (32, 64, 64, 3), 1000


@pytest.fixture(scope="module")
def pipe():
    return soundreel.load(device="cpu")


@pytest.fixture(scope="module")
def clips(pipe):
    """One clip of every kind, in few steps."""
    return {
        kind: pipe.generate(label=kind, seed=label, **FEW)[0]
        for label, kind in enumerate(pipe.class_names)
    }


def change(clip):
    """Mean absolute change of a pixel from frame to frame, 0 to 255."""
    return float(np.abs(np.diff(clip.frames.astype(float), axis=0)).mean())


def level_db(waveform):
    return 10 * np.log10(float((waveform**2).mean()) + 1e-12)


def is_alive(clip):
    """Whether pictures are neither black nor frozen, and the sound is not silent."""
    return clip.frames.std() > 8 and change(clip) > 0.4 and level_db(clip.waveform) > -60


def test_it_fits_into_40_mib():
    size = sum(path.stat().st_size for path in DEFAULT_MODEL.rglob("*") if path.is_file())
    assert 1e7 < size <= 40 * 2**20


def test_it_knows_every_kind_of_scene(pipe):
    assert set(pipe.class_names) == set(KINDS)
    assert (pipe.clip.num_frames, pipe.clip.height, pipe.clip.width) == SHAPE[:3]
    assert (pipe.clip.frame_rate, pipe.clip.sample_rate) == (16, 16_000)
    assert pipe.conditions == {"video", "audio", "label", "after", "between"}


def test_no_clip_is_black_frozen_or_silent(clips):
    for kind, clip in clips.items():
        assert clip.frames.shape == SHAPE
        assert clip.waveform.shape == (1, 32_000)
        assert is_alive(clip), kind


def test_a_seed_gives_the_same_clip_and_another_one_another(pipe, clips):
    (again,) = pipe.generate(label=0, seed=0, **FEW)
    first = clips[pipe.class_names[0]]
    assert np.array_equal(again.frames, first.frames)
    assert np.array_equal(again.waveform, first.waveform)
    (other,) = pipe.generate(label=0, seed=1, **FEW)
    assert not np.array_equal(other.frames, first.frames)
    assert not np.array_equal(other.waveform, first.waveform)


def test_kinds_look_as_they_should(clips):
    """Fire is red and dark, waves are bright, nights are dark, rain is restless, a lake is not."""
    red, _, blue = (clips["fire"].frames[..., channel].mean() for channel in range(3))
    assert red > 1.5 * blue
    assert clips["waves"].frames.mean() > 1.3 * clips["fire"].frames.mean()
    assert clips["lightning"].frames.mean() < 0.6 * clips["waves"].frames.mean()
    assert change(clips["rain"]) > 1.5 * change(clips["water_drops"])


def test_a_bell_is_heard_when_it_is_seen_to_ring(pipe):
    """Each clip's movement fits its own sound, and not those of the other clips of bells."""
    bells = pipe.generate(label="bells", count=8, seed=0, **FEW)
    movements = [motion_curves(clip.frames) for clip in bells]
    sounds = [sound_curves(clip.waveform, clip.sample_rate) for clip in bells]
    rate = bells[0].frame_rate
    scores = np.array([[sync_of_curves(m, s, rate).score for s in sounds] for m in movements])
    others = scores[~np.eye(8, dtype=bool)]
    assert np.diag(scores).mean() > 2
    assert abs(others.mean()) < 1


def test_a_given_video_keeps_its_picture_size_rate_and_length_and_needs_no_class(pipe):
    given = soundreel.render(
        "hammer", num_frames=60, height=72, width=96, frame_rate=Fraction(25), sample_rate=16_000
    )
    (made,) = pipe.generate(video=Clip(given.frames, None, given.frame_rate), seed=3, **FEW)
    assert np.array_equal(made.frames, given.frames)
    assert made.frame_rate == 25
    assert made.duration_s == pytest.approx(2.4)
    assert level_db(made.waveform) > -60
    assert not np.array_equal(made.waveform, given.waveform)


def test_pictures_for_a_sound_keep_the_sound(pipe, clips):
    given = clips["rain"]
    sound = Clip(None, given.waveform, sample_rate=given.sample_rate)
    (made,) = pipe.generate(audio=sound, seed=3, **FEW)
    assert np.allclose(made.waveform, given.waveform, atol=1e-4)
    assert made.frames.shape == SHAPE
    assert is_alive(made)


def test_it_goes_on_from_a_clip(pipe, clips):
    past = clips["metronome"]
    (film,) = pipe.generate(after=past, duration_s=4, label="metronome", **FEW)
    assert (film.num_frames, film.num_samples) == (64, 64_000)
    assert np.array_equal(film.frames[:32], past.frames)
    assert np.array_equal(film.waveform[:, :32_000], past.waveform)
    assert is_alive(Clip(film.frames[32:], film.waveform[:, 32_000:], Fraction(16)))


def test_it_fills_what_lies_between_two_clips(pipe, clips):
    before, after = clips["fire"], clips["waves"]
    gap = pipe.fill(before, after, 0.75, seed=2, **FEW)
    assert (gap.num_frames, gap.num_samples) == (12, 12_000)
    assert is_alive(gap)
    film = join_clips(pipe.stream(between=(before, after), duration_s=0.75, seed=2, **FEW))
    whole = np.concatenate([before.frames, gap.frames, after.frames])
    assert np.array_equal(film.frames, whole)


def test_a_stream_goes_on_in_pieces_with_pictures_and_sound(pipe):
    film = join_clips(islice(pipe.stream(label="rain", seed=1, **FEW), 6))
    assert film.frames.shape[0] > SHAPE[0], "longer than a window"
    assert film.num_samples == film.num_frames * SAMPLES_PER_FRAME
    assert is_alive(film)
    assert is_alive(film.cut(film.duration - 1, 1)), "the last second too"


def test_loading_it_does_not_import_the_compiler_of_pytorch():
    """That takes longer than to read the weights and to make a clip."""
    code = (
        "import sys, soundreel; soundreel.load(device='cpu'); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
