"""Curves of starts and of activity, in the sound and in the picture.

Of each modality there are two curves. The *flux* is the summed increase of log energy, over
frequency bands for the sound, over blocks of the picture for the frames: constant loudness and
constant motion give none, whatever their level, so that a busy clip does not score by being busy.
The *level* is the logarithm of loudness, or of how much changes from frame to frame: rain and
engines have little else.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise

import numpy as np
from jaxtyping import Float, Float32, UInt8

from soundreel.errors import SoundreelError

Picture = UInt8[np.ndarray, "height width 3"]
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
PICTURE_BYTES_AT_ONCE = 2 << 20
ROWS_AT_ONCE = 400  # of sound: two seconds

MIN_DURATION_S = 1.0
MIN_FRAME_RATE = 8
MIN_SAMPLE_RATE = 8_000


class SyncError(SoundreelError):
    """A clip whose sync cannot be measured: too short, too slow, or without one modality."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundCurves:
    """The sound's flux and power every `HOP_S` seconds; entry n belongs to time n * HOP_S."""

    flux: Float[np.ndarray, " time"]
    power: Float[np.ndarray, " time"]

    def between(
        self, edges_s: Float[np.ndarray, "*lag edge"]
    ) -> tuple[Float[np.ndarray, "*lag interval"], Float[np.ndarray, "*lag interval"]]:
        """Compute flux and level over each interval between neighbouring times."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """All that the sync of one clip depends on."""

    motion: MotionCurves
    sound: SoundCurves
    frame_rate: Fraction

    @property
    def duration_s(self) -> float:
        """Return for how many seconds the pictures last."""
        return (len(self.motion.flux) + 1) / float(self.frame_rate)


def check_rates(frame_rate: Fraction, sample_rate: int) -> None:
    """Raise `SyncError` saying what is needed if a rate is too low."""
    if frame_rate < MIN_FRAME_RATE:
        raise SyncError(
            f"sync needs at least {MIN_FRAME_RATE} frames a second, got {float(frame_rate):g}"
        )
    if sample_rate < MIN_SAMPLE_RATE:
        raise SyncError(f"sync needs sound at {MIN_SAMPLE_RATE} Hz or more, got {sample_rate} Hz")


def check_measurable(
    num_frames: int, frame_rate: Fraction, num_samples: int, sample_rate: int
) -> None:
    """Raise `SyncError` saying what is needed if a clip is too short or its rates are too low."""
    check_rates(frame_rate, sample_rate)
    duration_s = min(float(num_frames / frame_rate), num_samples / sample_rate)
    if duration_s < MIN_DURATION_S:
        raise SyncError(
            f"sync needs at least {MIN_DURATION_S:g} s of picture and sound, got {duration_s:.2f} s"
        )


def sound_curves(sound: Waveform | Iterable[Waveform], sample_rate: int) -> SoundCurves:
    """Compute flux and power of the sound; channels are averaged.

    The flux is the rise of log power over 15 ms, in decades, summed over 24 mel bands. A window of
    32 ms sees a start early by half the 15 ms: the two cancel, so entry n belongs to time n * HOP_S
    (checked on clicks).

    Args:
        sound: a waveform, or successive blocks of one.
    """
    power = _band_power(sound, sample_rate)
    floor = max(FLOOR_POWER, float(power.max()) * 10 ** (-RANGE_DB / 10))
    flux = np.zeros(len(power))
    for first in range(LAG_HOPS, len(power), ROWS_AT_ONCE):
        part = power[first - LAG_HOPS : first + ROWS_AT_ONCE]
        level = np.log10(np.maximum(part, np.float32(floor)))
        rise = np.maximum(level[LAG_HOPS:] - level[:-LAG_HOPS], 0)
        flux[first : first + ROWS_AT_ONCE] = rise.sum(axis=1)
    return SoundCurves(flux=flux, power=power.sum(axis=1).astype(np.float64))


def motion_curves(pictures: Iterable[Picture]) -> MotionCurves:
    """Compute flux and level of the picture from its frames, of which few are held at a time."""
    return motion_of_blocks(block_changes(pictures))


def motion_of_blocks(blocks: Float[np.ndarray, "interval block"]) -> MotionCurves:
    """Compute flux and level of the picture from the changes of its blocks.

    The flux is the rise of the logarithm of a block's change since the interval before, summed over
    blocks.
    """
    level = np.log(blocks + MOTION_FLOOR)
    rise = np.maximum(level[1:] - level[:-1], 0).sum(axis=1)
    return MotionCurves(
        flux=np.concatenate([[0.0], rise]), level=np.log(blocks.mean(axis=1) + MOTION_FLOOR / 3)
    )


def detect_onsets(waveform: Waveform, sample_rate: int, threshold: float = 4.0) -> list[float]:
    """Find the times of sound onsets in seconds: peaks of the flux, at least 50 ms apart.

    Args:
        threshold: how far a peak must stand above the median around it (0.6 s), in decades summed
            over bands.
    """
    return onsets_of(sound_curves(waveform, sample_rate), threshold)


def onsets_of(sound: SoundCurves, threshold: float = 4.0) -> list[float]:
    """Find the times of sound onsets as `detect_onsets` does, from the curves."""
    peaks = _peaks(sound.flux, threshold, reach=round(0.3 / HOP_S), apart=round(0.05 / HOP_S))
    return [k * HOP_S for k in peaks]


def detect_motion_peaks(
    frames: Frames, frame_rate: Fraction, threshold: float = 3.0
) -> list[float]:
    """Find the times at which something starts in the picture, in seconds.

    The frames between which it starts are known; the time is the middle of their interval.
    """
    return motion_peaks_of(motion_curves(frames), frame_rate, threshold)


def motion_peaks_of(
    motion: MotionCurves, frame_rate: Fraction, threshold: float = 3.0
) -> list[float]:
    """Find when something starts in the picture as `detect_motion_peaks` does, from the curves."""
    reach = max(2, round(0.3 * float(frame_rate)))
    apart = max(1, round(0.08 * float(frame_rate)))
    peaks = _peaks(motion.flux, threshold, reach, apart)
    return [(k + 0.5) / float(frame_rate) for k in peaks]


def _peaks(
    curve: Float[np.ndarray, " time"], threshold: float, reach: int, apart: int
) -> list[int]:
    """Find local maxima above the local median by a threshold; of close ones the highest."""
    padded = np.pad(curve, reach, mode="reflect") if len(curve) > reach else np.pad(curve, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    parts = range(0, len(curve), ROWS_AT_ONCE)  # a median copies its windows
    medians = [np.median(windows[k : k + ROWS_AT_ONCE], axis=1) for k in parts]
    height = curve - np.concatenate(medians)
    found: list[int] = []
    for k in np.argsort(-height, kind="stable"):
        if height[k] < threshold:
            break
        if all(abs(int(k) - other) >= apart for other in found):
            found.append(int(k))
    return sorted(found)


def _band_power(
    sound: Waveform | Iterable[Waveform], sample_rate: int
) -> Float[np.ndarray, "time band"]:
    """Compute the power of 24 mel bands every `HOP_S` seconds, a stretch of windows at a time."""
    size = 1 << round(np.log2(WINDOW_S * sample_rate))
    window, bands = np.hanning(size), _bands(size, sample_rate)
    rows: list[Float[np.ndarray, "_row band"]] = []
    held, first = np.zeros(0, np.float32), 0  # what later windows need, from which sample on
    count = 0  # of windows
    for part in _mirrored_parts(sound, size // 2):
        held = np.concatenate([held, part])
        candidates = count + np.arange(int(len(held) / sample_rate / HOP_S) + 2)
        starts = np.floor(candidates * HOP_S * sample_rate).astype(int) - first
        count += int((starts + size <= len(held)).sum())
        starts = starts[starts + size <= len(held)]
        for k in range(0, len(starts), ROWS_AT_ONCE):
            frames = held[starts[k : k + ROWS_AT_ONCE, None] + np.arange(size)] * window
            power = (np.abs(np.fft.rfft(frames, axis=1)) ** 2 / size) @ bands
            rows.append(power.astype(np.float32))  # of an hour: 70 MB
        keep = min(int(np.floor(count * HOP_S * sample_rate)) - first, len(held))
        held, first = held[keep:], first + keep
    return np.concatenate(rows)


def _mirrored_parts(
    sound: Waveform | Iterable[Waveform], half: int
) -> Iterator[Float32[np.ndarray, " _sample"]]:
    """Yield the mean of the channels with both ends mirrored: zeros would make an onset there.

    At the end one sample less is added, so that every window's middle is a sample of the sound.
    """
    held, lead = np.zeros(0, np.float32), half
    for block in [sound] if isinstance(sound, np.ndarray) else sound:
        held = np.concatenate([held, block.mean(axis=0)])
        if len(held) > 2 * half:
            yield np.pad(held[: -half - 1], (lead, 0), mode="reflect")
            held, lead = held[-half - 1 :], 0
    yield np.pad(held, (lead, half - 1), mode="reflect")


def block_changes(pictures: Iterable[Picture]) -> Float[np.ndarray, "interval block"]:
    """Compute the mean absolute change of 8 by 8 blocks of the picture from frame to frame.

    In units of full scale. No more than a few pictures are held at a time.

    Raises:
        SyncError: fewer than two pictures.
    """
    rest = iter(pictures)
    first = next(rest, None)
    if first is None:
        raise SyncError("sync needs at least two pictures, got none")
    step = max(1, PICTURE_BYTES_AT_ONCE // first.nbytes)
    rows, last = [], first
    while batch := list(islice(rest, step)):
        if any(picture.shape != first.shape for picture in batch):
            raise SyncError("the size of the pictures changes; cut the video there")
        rows.append(_block_means(np.stack([last, *batch])))
        last = batch[-1]
    if not rows:
        raise SyncError("sync needs at least two pictures, got one")
    return np.concatenate(rows)


def _block_means(frames: Frames) -> Float[np.ndarray, "interval block"]:
    """Average the change over blocks, a row of them at a time, to hold few numbers.

    Blocks may differ by a pixel where sizes are no multiples of 8.
    """
    rows, columns = (
        np.round(np.linspace(0, size, min(NUM_BLOCKS, size) + 1)).astype(int)
        for size in frames.shape[1:3]
    )
    means = []
    for top, bottom in pairwise(rows):
        grey = frames[:, top:bottom] @ np.array([0.299, 0.587, 0.114], np.float32) / 255
        change = np.abs(np.diff(grey, axis=0)).mean(axis=1)
        means.append(np.add.reduceat(change, columns[:-1], axis=1) / np.diff(columns))
    return np.concatenate(means, axis=1)


def _bands(size: int, sample_rate: int) -> Float[np.ndarray, "bin band"]:
    """Make triangles on a mel scale from 60 Hz to 7.6 kHz or to the highest frequency there is."""
    top = min(7600.0, 0.475 * sample_rate)
    mel = 1127 * np.log1p(np.fft.rfftfreq(size, 1 / sample_rate) / 700)
    low, high = 1127 * np.log1p(np.array([60.0, top]) / 700)
    edges = np.linspace(low, high, NUM_BANDS + 2)
    distance = np.abs(mel[:, None] - edges[None, 1:-1]) / (edges[1] - edges[0])
    return np.clip(1 - distance, 0, None)
