"""Animated GIF files have the frames and the length of the clip."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageSequence

from soundreel.media.gif import write_gif


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(16), Fraction(30000, 1001)])
def test_frames_and_length_are_kept(tmp_path, rate):
    frames = np.zeros((24, 8, 12, 3), np.uint8)
    for k, frame in enumerate(frames):
        frame[:, k % 12] = 10 * k + 9
    write_gif(tmp_path / "a.gif", frames, rate)
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0
        assert image.size == (12, 8)
        shown = [frame.convert("RGB").copy() for frame in ImageSequence.Iterator(image)]
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    assert len(shown) == 24
    assert abs(np.asarray(shown[7]).astype(int) - frames[7]).max() <= 4
    assert sum(durations) == pytest.approx(1000 * 24 / float(rate), abs=10)
