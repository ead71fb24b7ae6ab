"""Shots are told apart by PySceneDetect where it is installed; else the user is told."""

import importlib.util
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from soundreel.data import cuts
from soundreel.data.manifest import DataError, load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.encode import write_mkv

SPLIT = PrepareOptions(height=8, width=8, scene_cuts="split")


def test_without_the_library_nothing_is_begun(tmp_path, make_video, monkeypatch):
    make_video(tmp_path / "in" / "a.mkv")
    monkeypatch.setattr(cuts.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'soundreel\[data\]'"):
        prepare_dataset(tmp_path / "in", tmp_path / "out", SPLIT)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def film(tmp_path):
    """Two shots of panning texture, 2.48 and 2.52 s, and a flash of one frame in the second."""
    if importlib.util.find_spec("scenedetect") is None:
        pytest.skip("PySceneDetect is not installed: pip install 'soundreel[data]'")
    draw = np.random.default_rng(0)
    worlds = [np.kron(draw.integers(0, 120, (6, 60, 3)), np.ones((16, 16, 1))).astype(np.uint8)]
    worlds.append(255 - worlds[0])
    frames = [worlds[k >= 62][:, 2 * k : 2 * k + 128] for k in range(125)]
    frames[100] = np.minimum(frames[100].astype(int) + 40, 255).astype(np.uint8)
    sound = draw.normal(0, 0.1, (1, 5 * 16_000)).astype(np.float32)
    (tmp_path / "in").mkdir()
    write_mkv(tmp_path / "in" / "film.mkv", frames, sound, Fraction(25), 16_000)
    return tmp_path / "in"


def test_no_clip_spans_a_cut_and_motion_is_none(film, tmp_path):
    prepare_dataset(film, tmp_path / "out", SPLIT)
    pieces = [(r.start_s, r.num_frames) for r in load_manifest(tmp_path / "out")]
    assert pieces == [(0.0, 25), (2.5, 25)]  # the cut at 2.48 s shows from the frame at 2.5 s on


def test_cuts_are_kept_unless_asked_for(film, tmp_path):
    prepare_dataset(film, tmp_path / "out", replace(SPLIT, scene_cuts="keep"))
    assert [record.num_frames for record in load_manifest(tmp_path / "out")] == [50]
