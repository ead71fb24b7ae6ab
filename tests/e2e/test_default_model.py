"""The model that comes with the package: small enough, complete, and worth looking at."""

import numpy as np
import pytest

import soundreel
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.data.scenes.render import KINDS
from soundreel.metrics.sync.score import sync_of_curves
from soundreel.metrics.sync.signals import motion_curves, sound_curves
from soundreel.systems import DEFAULT_MODEL

FEW = {"num_steps": 12, "decoder_num_steps": 4}


@pytest.fixture(scope="module")
def pipe():
    return soundreel.load(device="cpu")


@pytest.fixture(scope="module")
def clips(pipe):
    """One clip of every kind, in few steps."""
    return {
        kind: pipe.generate(label=label, seed=label, **FEW)[0]
        for label, kind in enumerate(pipe.settings.class_names)
    }


def change(clip):
    """Mean absolute change of a pixel from frame to frame, 0 to 255."""
    return float(np.abs(np.diff(clip.frames.astype(float), axis=0)).mean())


def level_db(clip):
    return 10 * np.log10(float((clip.waveform**2).mean()) + 1e-12)


def test_it_fits_into_32_mib():
    size = sum(path.stat().st_size for path in DEFAULT_MODEL.rglob("*") if path.is_file())
    assert 1e7 < size <= 32 * 2**20


def test_it_knows_every_kind_of_scene(pipe):
    assert set(pipe.settings.class_names) == set(KINDS)
    assert (pipe.clip.num_frames, pipe.clip.height, pipe.clip.width) == (16, 64, 64)


def test_no_clip_is_black_frozen_or_silent(clips):
    for kind, clip in clips.items():
        assert clip.frames.shape == (16, 64, 64, 3)
        assert clip.frames.std() > 8, kind
        assert change(clip) > 0.4, kind
        assert level_db(clip) > -60, kind


def test_kinds_look_as_they_should(clips):
    """Fire is red and dark, waves are bright and slow, nights are dark, fireworks restless."""
    red, _, blue = (clips["fire"].frames[..., channel].mean() for channel in range(3))
    assert red > 1.5 * blue
    assert clips["waves"].frames.mean() > 1.3 * clips["fire"].frames.mean()
    assert clips["lightning"].frames.mean() < 0.6 * clips["waves"].frames.mean()
    assert change(clips["fireworks"]) > change(clips["waves"])


def test_a_bell_is_heard_when_it_is_seen_to_ring(pipe):
    """Each clip's movement fits its own sound, and not those of the other clips of bells."""
    bells = pipe.generate(label=pipe.settings.class_names.index("bells"), count=8, seed=0, **FEW)
    movements = [motion_curves(clip.frames) for clip in bells]
    sounds = [sound_curves(clip.waveform, clip.sample_rate) for clip in bells]
    rate = bells[0].frame_rate
    scores = np.array([[sync_of_curves(m, s, rate).score for s in sounds] for m in movements])
    others = scores[~np.eye(8, dtype=bool)]
    assert np.diag(scores).mean() > 2
    assert abs(others.mean()) < 1


def test_sound_for_pictures_keeps_the_pictures_and_needs_no_class(pipe, clips):
    given = clips["hammer"]
    (made,) = pipe.generate(video=Clip(given.frames, None, given.frame_rate), seed=3, **FEW)
    assert (made.frames == given.frames).all()
    assert level_db(made) > -60


def test_pictures_for_a_sound_keep_the_sound(pipe, clips):
    given = clips["rain"]
    sound = Clip(None, given.waveform, sample_rate=given.sample_rate)
    (made,) = pipe.generate(audio=sound, seed=3, **FEW)
    assert np.allclose(made.waveform, given.waveform, atol=1e-4)
    assert made.frames.std() > 8


def test_the_demo_is_a_page_of_six_clips(tmp_path, capsys):
    assert run(["demo", "--out", str(tmp_path / "page")]) == 0
    names = sorted(path.name for path in (tmp_path / "page").iterdir())
    assert [name for name in names if name.endswith(".mp4")] == [
        "01-hammer.mp4",
        "02-fire.mp4",
        "03-bells.mp4",
        "04-waves.mp4",
        "05-sound-for-a-video.mp4",
        "06-pictures-for-a-sound.mp4",
    ]
    assert "index.html" in capsys.readouterr().out
