"""The excerpts that ship with the repository."""

from pathlib import Path

import numpy as np
import pytest

from soundreel.clip import Clip

CLIPS = Path(__file__).resolve().parents[2] / "examples" / "clips"


def test_the_excerpts_stay_small_and_are_attributed():
    files = [path for path in CLIPS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 3 << 20
    labels = {path.parent.name for path in files if path.suffix == ".mp4"}
    text = (CLIPS / "ATTRIBUTION.md").read_text()
    assert labels
    for label in labels:
        assert f"| `{label}` |" in text
    for licence in (CLIPS / "LICENSES").iterdir():
        assert f"LICENSES/{licence.name}" in text


@pytest.mark.parametrize("label", ["water", "city", "film"])
def test_every_excerpt_moves_and_sounds_for_three_and_a_half_seconds(label):
    paths = sorted((CLIPS / label).glob("*.mp4"))
    assert len(paths) == 4
    for path in paths:
        clip = Clip.load(path, frame_rate=10, sample_rate=16_000, num_channels=1)
        assert clip.num_frames in (34, 35)
        assert np.abs(clip.waveform).max() > 0.01
        assert np.abs(clip.frames[0].astype(int) - clip.frames[20]).mean() > 1
