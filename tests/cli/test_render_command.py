"""`soundreel render`: a folder of clips with their truth, resumable, never mixed."""

import json
import os
from fractions import Fraction

import numpy as np
import pytest

from soundreel.cli.render import RenderArguments, parse_frame_rate, render
from soundreel.clip import Clip
from soundreel.data.scenes.render import RenderOptions, render_clip
from soundreel.files import locked
from soundreel.locks import FolderInUseError

SMALL = {
    "size": 32,
    "duration_s": 0.8,
    "frame_rate": "10",
    "kinds": ("bells", "rain"),
    "workers": 0,
}


def render_to(dest, **settings):
    assert render(RenderArguments(dest=dest, **settings)) == 0


def test_frame_rates_are_numbers_or_fractions():
    assert parse_frame_rate("30000/1001") == Fraction(30000, 1001)
    for text in ("fast", "1/0", "-3"):
        with pytest.raises(ValueError, match="--frame-rate"):
            parse_frame_rate(text)


def test_clips_lie_in_folders_by_class_with_their_truth(tmp_path):
    render_to(tmp_path / "set", count=3, seed=4, **SMALL)
    names = sorted(str(p.relative_to(tmp_path / "set")) for p in tmp_path.glob("set/*/*"))
    assert names == [
        "bells/000000.json",
        "bells/000000.mkv",
        "bells/000002.json",
        "bells/000002.mkv",
        "rain/000001.json",
        "rain/000001.mkv",
    ]
    options = RenderOptions(num_frames=8, height=32, width=32, kinds=("bells", "rain"))
    expected = render_clip(options, 4, 2)
    clip = Clip.load(tmp_path / "set" / "bells" / "000002.mkv")
    assert np.array_equal(clip.frames, expected.frames)
    assert np.abs(clip.waveform - expected.waveform).max() < 1 / 16_000
    truth = json.loads((tmp_path / "set" / "bells" / "000002.json").read_text())
    assert truth == json.loads(json.dumps(expected.truth()))
    index = json.loads((tmp_path / "set" / "scenes.json").read_text())
    assert index["seed"] == 4


def test_a_repeated_call_renders_only_what_is_missing(tmp_path):
    render_to(tmp_path / "set", count=2, **SMALL)
    kept = tmp_path / "set" / "bells" / "000000.mkv"
    before = kept.stat().st_mtime_ns
    (tmp_path / "set" / "rain" / "000001.json").unlink()
    render_to(tmp_path / "set", count=3, **SMALL)
    assert kept.stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("set/*/*.json"))) == 3


def test_another_seed_is_not_mixed_into_a_folder(tmp_path):
    render_to(tmp_path / "set", count=1, **SMALL)
    with pytest.raises(ValueError, match="another seed or other options"):
        render_to(tmp_path / "set", count=1, seed=1, **SMALL)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="no folder of rendered scenes"):
        render_to(tmp_path / "notes", count=1, **SMALL)


def test_playable_files_can_be_asked_for(tmp_path):
    render_to(tmp_path / "set", count=1, file_format="mp4", **SMALL)
    clip = Clip.load(tmp_path / "set" / "bells" / "000000.mp4")
    assert clip.duration_s == pytest.approx(0.8)


def test_a_call_that_was_killed_can_be_repeated_and_two_at_once_are_refused(tmp_path):
    dest = tmp_path / "set"
    dest.mkdir()
    left = dest / ".scenes.json.00000000-1-0.part"
    left.write_text("half")
    os.utime(left, (0, 0))
    render_to(dest, count=1, seed=4, **SMALL)
    with locked(dest), pytest.raises(FolderInUseError, match="set: in use by process"):
        render_to(dest, count=2, seed=4, **SMALL)
    render_to(dest, count=2, seed=4, **SMALL)
    files = sorted(str(p.relative_to(dest)) for p in dest.rglob("*") if p.is_file())
    assert files == [
        "bells/000000.json",
        "bells/000000.mkv",
        "rain/000001.json",
        "rain/000001.mkv",
        "scenes.json",
    ]
