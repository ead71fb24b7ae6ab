"""When something starts and how much goes on, in the sound and in the picture.

Of each modality there are two curves. The *flux* is the summed increase of log energy, over
frequency bands for the sound, over blocks of the picture for the frames: constant loudness and
constant motion give none, whatever their level, so that a busy clip does not score by being busy.
The *level* is the logarithm of loudness, or of how much changes from frame to frame: rain and
engines have little else.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float, Float32, UInt8

Frames = UInt8[np.ndarray, "frame height width 3"]
Waveform = Float32[np.ndarray, "channel sample"]

HOP_S = 0.005
WINDOW_S = 0.032
NUM_BANDS = 24
LAG_HOPS = 3  # a rise over 15 ms
RANGE_DB = 60.0  # what lies further below the loudest band of the clip counts as silence
FLOOR_POWER = 1e-6
NUM_BLOCKS = 8  # the picture is cut into 8 by 8 blocks
MOTION_FLOOR = 0.01  # mean change of a block, in units of full scale, below which it is noise

MIN_DURATION_S = 1.0
MIN_FRAME_RATE = 8
MIN_SAMPLE_RATE = 8_000


class SyncError(ValueError):
    """A clip whose sync cannot be measured: too short, too slow, or without one modality."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundCurves:
    """The sound's flux and power every `HOP_S` seconds; entry n belongs to time n * HOP_S."""

    flux: Float[np.ndarray, " time"]
    power: Float[np.ndarray, " time"]

    def between(
        self, edges_s: Float[np.ndarray, "*lag edge"]
    ) -> tuple[Float[np.ndarray, "*lag interval"], Float[np.ndarray, "*lag interval"]]:
        """Flux and level over each interval between neighbouring times."""
        times = (np.arange(len(self.flux) + 1) - 0.5) * HOP_S
        flux, power = (
            np.diff(np.interp(edges_s, times, np.concatenate([[0.0], np.cumsum(values)])))
            for values in (self.flux, self.power)
        )
        return flux, np.log(power / (np.diff(edges_s) / HOP_S) + FLOOR_POWER)


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionCurves:
    """The picture's flux and level; entry k belongs to the interval from frame k to k + 1."""

    flux: Float[np.ndarray, " interval"]
    level: Float[np.ndarray, " interval"]


def check_measurable(
    num_frames: int, frame_rate: Fraction, num_samples: int, sample_rate: int
) -> None:
    """Raise `SyncError` saying what is needed if a clip is too short or its rates are too low."""
    if frame_rate < MIN_FRAME_RATE:
        raise SyncError(
            f"sync needs at least {MIN_FRAME_RATE} frames a second, got {float(frame_rate):g}"
        )
    if sample_rate < MIN_SAMPLE_RATE:
        raise SyncError(f"sync needs sound at {MIN_SAMPLE_RATE} Hz or more, got {sample_rate} Hz")
    duration_s = min(float(num_frames / frame_rate), num_samples / sample_rate)
    if duration_s < MIN_DURATION_S:
        raise SyncError(
            f"sync needs at least {MIN_DURATION_S:g} s of picture and sound, got {duration_s:.2f} s"
        )


def sound_curves(waveform: Waveform, sample_rate: int) -> SoundCurves:
    """Flux and power of the sound; channels are averaged.

    The flux is the rise of log power over 15 ms, in decades, summed over 24 mel bands. A window of
    32 ms sees a start early by half the 15 ms: the two cancel, so entry n belongs to time n * HOP_S
    (checked on clicks).
    """
    power = _band_power(waveform, sample_rate)
    level = _decades(power)
    rise = np.maximum(level[LAG_HOPS:] - level[:-LAG_HOPS], 0).sum(axis=1)
    flux = np.concatenate([np.zeros(LAG_HOPS), rise]).astype(np.float64)
    return SoundCurves(flux=flux, power=power.sum(axis=1).astype(np.float64))


def band_levels(waveform: Waveform, sample_rate: int) -> Float[np.ndarray, "time band"]:
    """Log power in decades of 24 mel bands every `HOP_S` seconds, over a range of 60 dB."""
    return _decades(_band_power(waveform, sample_rate))


def block_levels(frames: Frames) -> Float[np.ndarray, "interval block"]:
    """Logarithm of the change of each block between frames."""
    return np.log(_block_change(frames) + MOTION_FLOOR)


def motion_curves(frames: Frames) -> MotionCurves:
    """Flux and level of the picture.

    The change of a block is its mean absolute difference from one frame to the next; the flux is
    the rise of its logarithm since the interval before, summed over blocks.
    """
    blocks = _block_change(frames)
    level = np.log(blocks + MOTION_FLOOR)
    rise = np.maximum(level[1:] - level[:-1], 0).sum(axis=1)
    return MotionCurves(
        flux=np.concatenate([[0.0], rise]), level=np.log(blocks.mean(axis=1) + MOTION_FLOOR / 3)
    )


def detect_onsets(waveform: Waveform, sample_rate: int, threshold: float = 4.0) -> list[float]:
    """Times of sound onsets in seconds: peaks of the flux, at least 50 ms apart.

    Args:
        threshold: how far a peak must stand above the median around it (0.6 s), in decades summed
            over bands.
    """
    curve = sound_curves(waveform, sample_rate).flux
    peaks = _peaks(curve, threshold, reach=round(0.3 / HOP_S), apart=round(0.05 / HOP_S))
    return [k * HOP_S for k in peaks]


def detect_motion_peaks(
    frames: Frames, frame_rate: Fraction, threshold: float = 3.0
) -> list[float]:
    """Times at which something starts in the picture, in seconds: the middle of the interval."""
    curve = motion_curves(frames).flux
    reach = max(2, round(0.3 * float(frame_rate)))
    peaks = _peaks(curve, threshold, reach, apart=max(1, round(0.08 * float(frame_rate))))
    return [(k + 0.5) / float(frame_rate) for k in peaks]


def _peaks(
    curve: Float[np.ndarray, " time"], threshold: float, reach: int, apart: int
) -> list[int]:
    """Local maxima above the local median by a threshold; of close ones the highest."""
    padded = np.pad(curve, reach, mode="reflect") if len(curve) > reach else np.pad(curve, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    height = curve - np.median(windows, axis=1)
    found: list[int] = []
    for k in np.argsort(-height, kind="stable"):
        if height[k] < threshold:
            break
        if all(abs(int(k) - other) >= apart for other in found):
            found.append(int(k))
    return sorted(found)


def _band_power(waveform: Waveform, sample_rate: int) -> Float[np.ndarray, "time band"]:
    mono = waveform.mean(axis=0)
    size = 1 << round(np.log2(WINDOW_S * sample_rate))
    padded = np.pad(mono, size // 2, mode="reflect")  # zeros would make an onset at the start
    starts = np.floor(np.arange(0, len(mono) / sample_rate, HOP_S) * sample_rate).astype(int)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
    return (np.abs(np.fft.rfft(frames, axis=1)) ** 2 / size) @ _bands(size, sample_rate)


def _decades(power: Float[np.ndarray, "time band"]) -> Float[np.ndarray, "time band"]:
    floor = max(FLOOR_POWER, float(power.max()) * 10 ** (-RANGE_DB / 10))
    return np.log10(np.maximum(power, floor))


def _block_change(frames: Frames) -> Float[np.ndarray, "interval block"]:
    grey = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    change = np.abs(np.diff(grey, axis=0))
    for axis in (1, 2):  # blocks may differ by a pixel where sizes are no multiples of 8
        edges = np.linspace(0, change.shape[axis], min(NUM_BLOCKS, change.shape[axis]) + 1)
        starts = np.round(edges).astype(int)
        sizes = np.diff(starts).reshape((-1, 1) if axis == 1 else (-1,))
        change = np.add.reduceat(change, starts[:-1], axis=axis) / sizes
    return change.reshape(len(change), -1).astype(np.float64)


def _bands(size: int, sample_rate: int) -> Float[np.ndarray, "bin band"]:
    """Triangles on a mel scale from 60 Hz to 7.6 kHz, or to the highest frequency there is."""
    top = min(7600.0, 0.475 * sample_rate)
    mel = 1127 * np.log1p(np.fft.rfftfreq(size, 1 / sample_rate) / 700)
    low, high = 1127 * np.log1p(np.array([60.0, top]) / 700)
    edges = np.linspace(low, high, NUM_BANDS + 2)
    distance = np.abs(mel[:, None] - edges[None, 1:-1]) / (edges[1] - edges[0])
    return np.clip(1 - distance, 0, None)
