"""Small videos with known content, from which data sets are prepared in tests."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from soundreel.media.encode import write_mkv

MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(make_video_anywhere: MakeVideo) -> MakeVideo:
    """Writes a video; see `make_video_anywhere`."""
    return make_video_anywhere


@pytest.fixture(scope="session")
def make_video_anywhere() -> MakeVideo:
    """Writes a lossless video whose every frame and sample tells its time.

    Frame k is grey level `first_level + k` with its left half 100 brighter; sample n is
    `loudness * sin(2 pi 440 n / sample_rate)`.
    """

    def make(
        path: Path,
        *,
        duration_s: float = 2.0,
        frame_rate: int = 10,
        sample_rate: int = 16_000,
        size: tuple[int, int] = (16, 16),
        first_level: int = 0,
        loudness: float = 0.5,
        sound_s: float | None = None,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = round(duration_s * frame_rate)
        levels = (first_level + np.arange(count)).astype(np.uint8)
        frames = np.repeat(levels, size[0] * size[1] * 3).reshape(count, *size, 3)
        frames[:, :, : size[1] // 2] += 100
        times = np.arange(round((sound_s or duration_s) * sample_rate)) / sample_rate
        waveform = (loudness * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]
        write_mkv(path, list(frames), waveform, Fraction(frame_rate), sample_rate)
        return path

    return make
