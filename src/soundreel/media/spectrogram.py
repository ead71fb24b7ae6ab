"""Draw the mel spectrogram of a sound in colours, every time and pitch at a known place."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from soundreel.audio.mel import MelConfig, hz_to_mel, log_mel

RANGE_DB = 72.0
MIN_PEAK_DB = -30.0
"""Levels are shown from the peak (but for a few points) down; fainter sounds stay dark."""
NUM_MELS = 96
WINDOW_S = 0.032
MAGMA = (
    (0, 0, 4),
    (28, 16, 68),
    (79, 18, 123),
    (129, 37, 129),
    (181, 54, 122),
    (229, 80, 100),
    (251, 135, 97),
    (254, 194, 135),
    (252, 253, 191),
)
"""Nine evenly spaced colours of matplotlib's map of that name, dark to bright."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MelPicture:
    """Pixels, low pitch at the bottom, and the band they show."""

    pixels: UInt8[np.ndarray, "height width 3"]
    max_hz: float

    def row_of(self, hz: float | int) -> int | None:
        """Return the row at which a frequency lies; None above the band."""
        if hz > self.max_hz:
            return None
        mels = hz_to_mel(torch.tensor([hz, self.max_hz], dtype=torch.float64)).tolist()
        return round(self.pixels.shape[0] * (1 - mels[0] / mels[1]))


def mel_picture(
    mono: Float[np.ndarray, " sample"], sample_rate: int, *, height: int, width: int
) -> MelPicture:
    """Draw a sound so that sample n lies at column `n / num_samples * width`.

    Args:
        mono: full scale 1.
    """
    fft_size = 1 << round(np.log2(WINDOW_S * sample_rate))
    hop_length = fft_size // 2
    while hop_length > 32 and len(mono) / hop_length < width / 2:
        hop_length //= 2
    config = MelConfig(
        filterbank_sample_rate=sample_rate,
        fft_size=fft_size,
        hop_length=hop_length,
        num_mels=NUM_MELS,
        max_hz=sample_rate / 2,
    )
    num_columns = -(-max(len(mono), fft_size) // hop_length)
    padded = np.zeros(num_columns * hop_length, np.float32)
    padded[: len(mono)] = mono
    mel = log_mel(torch.from_numpy(padded)[None], config)[0].flip(0).numpy()
    level_db = mel * (20 / np.log(10)) - 20 * np.log10(fft_size / 4)
    peak_db = max(float(np.quantile(level_db, 0.998)), MIN_PEAK_DB)
    brightness = np.clip(1 + (level_db - peak_db) / RANGE_DB, 0, 1).astype(np.float32)
    shown = (0, 0, len(mono) / hop_length, brightness.shape[0])
    scaled = Image.fromarray(brightness).resize(
        (width, height), Image.Resampling.BICUBIC, box=shown
    )
    return MelPicture(pixels=magma(np.asarray(scaled)), max_hz=config.max_hz)


def magma(
    brightness: Float[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the colours of 0 (near black) to 1 (pale yellow), perceptually even."""
    stops = np.linspace(0, 1, len(MAGMA))
    channels = [np.interp(brightness, stops, column) for column in zip(*MAGMA, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
