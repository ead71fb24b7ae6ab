"""Join windows of a film where both sides of a border have made the same stretch of time.

Sound is cross-faded for a few milliseconds, at a quiet place of the overlap where the two sides
agree best in phase. Pictures are cross-faded over the whole overlap, and the brightness and colours
of their areas for longer. Where the left side has to stay as it is, because it is somebody's own
clip, the difference at the border is taken into the right side and let fade there.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch.nn import functional

from soundreel.media.pixels import rounded_to_bytes

FADE_S = 0.01
"""Length of a cross-fade of sound: shorter clicks, longer is heard as two voices."""
QUIET_DB = 6.0
"""Places within so much of the quietest are quiet. A steady sound has them everywhere, and phase
decides; between strokes there are few, and no stroke is cut in two."""
AREAS = 8
"""Areas along each side of a picture; more of them tell things apart that move."""

Frames = UInt8[np.ndarray, "frame height width 3"] | Float32[np.ndarray, "frame height width 3"]
Following = (
    UInt8[np.ndarray, "following height width 3"] | Float32[np.ndarray, "following height width 3"]
)
"""Frames in bytes, or on the scale of bytes and not rounded yet; these stay unrounded."""
Sound = Float32[np.ndarray, "channel sample"]


def fade_pictures(left: Frames, right: Following, areas_fade: int) -> Following:
    """Return a window that begins as the one before it ends.

    Detail turns evenly from `left` to `right` over the overlap: frame i of K has weight
    (i + 1) / (K + 1), so that each of the K + 1 changes at and within it takes an equal share.
    Brightness and colours of whole areas take longer; a ball would leave a ghost, a wall does not.

    Args:
        left: the end of the window before.
        right: all frames of the window; its first K show what `left` shows.
        areas_fade: frames over which areas change, at least K.

    Source:
        Burt and Adelson 1983, "A multiresolution spline": each band of spatial frequency has a
        transition as wide as its waves, so that neither a seam nor a double image is seen. Here
        with two bands, along time.
    """
    return _settled(right, left - right[: len(left)].astype(np.float32), len(left), areas_fade)


def fade_sound(left: Sound, right: Sound, fade: int) -> Sound:
    """Return `left` up to the place of `best_place`, `right` after it, faded between.

    The fade keeps the power: its gains are those of a squared cosine, divided by the power that
    two signals of that correlation would have. No sample is moved in time.

    Args:
        fade: samples of the cross-fade; at most the overlap is used.
    """
    fade = min(fade, left.shape[1])
    if fade == 0:
        return left
    place, correlation = best_place(left, right, fade)
    angle = np.pi / 2 * (np.arange(fade) + 0.5) / fade
    out_gain, in_gain = np.cos(angle) ** 2, np.sin(angle) ** 2
    power = out_gain**2 + in_gain**2 + 2 * max(correlation, 0.0) * out_gain * in_gain
    middle = slice(place, place + fade)
    joined = np.concatenate([left[:, : place + fade], right[:, place + fade :]], axis=1)
    mixed = (out_gain * left[:, middle] + in_gain * right[:, middle]) / np.sqrt(power)
    joined[:, middle] = mixed.astype(np.float32)
    return joined


def best_place(left: Sound, right: Sound, length: int) -> tuple[int, float]:
    """Find where `length` samples of both sides are most alike, among quiet places.

    A place is as loud as the louder side's second differences there, in which clicks stand out.

    Returns:
        First sample of the stretch, and the normalised correlation there, within [-1, 1]. Of
        equally good places it is the one nearest to the middle; where one side is silent it is 0.
    """
    powers = [_sliding_sum(side.astype(np.float64) ** 2, length) for side in (left, right)]
    energies = powers[0] * powers[1]
    heard = energies > 1e-20
    products = _sliding_sum(left.astype(np.float64) * right, length)
    correlation = np.where(heard, products / np.sqrt(np.where(heard, energies, 1.0)), 0.0)
    loudness = np.maximum(*(_sliding_sum(_sharpness(side), length) for side in (left, right)))
    quiet = loudness <= loudness.min() * 10 ** (QUIET_DB / 10) + 1e-12
    best = np.flatnonzero(quiet & (correlation >= correlation[quiet].max() - 1e-9))
    place = int(best[np.abs(best - (len(correlation) - 1) / 2).argmin()])
    return place, float(np.clip(correlation[place], -1.0, 1.0))


def meet_pictures(
    last: Frames,
    shared: Frames,
    following: Following,
    fade: int,
    areas_fade: int,
) -> Following:
    """Return `following` so that it goes on from `last` without a jump.

    Args:
        last: the final frame of the left side (one frame), which stays as it is.
        shared: the right side's own idea of that frame.
        following: frames of the right side after it.
        fade, areas_fade: frames of it over which the difference between the two fades evenly: its
            detail, and the brightness and colours of whole areas.
    """
    return _settled(following, last.astype(np.float32) - shared, fade, areas_fade)


def meet_sound(
    last: Sound,
    shared: Sound,
    following: Float32[np.ndarray, "channel following"],
    fade: int,
) -> Float32[np.ndarray, "channel following"]:
    """Return `following` so that it goes on from `last` without a step.

    Args:
        last: the final sample of the left side, `channel 1`, which stays as it is.
        shared: the right side's own idea of that sample.
        following: samples of the right side after it; the difference fades over `fade` of them.
    """
    fade = min(fade, following.shape[1])
    weight = 1 - (np.arange(fade, dtype=np.float32) + 1) / (fade + 1)
    moved = following.copy()
    moved[:, :fade] += weight * (last - shared)
    return moved


def _sharpness(sound: Sound) -> Float[np.ndarray, "channel sample"]:
    """Return the squared second differences around each sample, those of edges 0."""
    differences = np.diff(sound.astype(np.float64), n=2, axis=1) ** 2
    return np.pad(differences, ((0, 0), (1, 1)))[:, : sound.shape[1]]


def _sliding_sum(
    values: Float[np.ndarray, "channel sample"], length: int
) -> Float[np.ndarray, " place"]:
    total = np.concatenate([[0.0], np.cumsum(values.sum(axis=0))])
    return total[length:] - total[:-length]


def _settled(
    frames: Following,
    difference: Float32[np.ndarray, "frame height width 3"],
    fade: int,
    areas_fade: int,
) -> Following:
    """Add a difference that fades; beyond its frames its last one goes on."""
    count = min(max(fade, areas_fade), len(frames))
    if not count or not len(difference):
        return frames
    held = difference[np.minimum(np.arange(count), len(difference) - 1)]
    areas = _areas(held)
    moved = frames[:count] + _falling(fade, count) * (held - areas)
    moved += _falling(areas_fade, count) * areas
    if frames.dtype == np.uint8:
        moved = rounded_to_bytes(moved)
    return np.concatenate([moved, frames[count:]])


def _falling(fade: int, count: int) -> Float32[np.ndarray, "count 1 1 1"]:
    """Return weights that fall evenly from below 1 to 0 at `fade`."""
    weight = 1 - (np.arange(count, dtype=np.float32) + 1) / (fade + 1)
    return weight.clip(0)[:, None, None, None]


def _areas(
    pictures: Float32[np.ndarray, "frame height width 3"],
) -> Float32[np.ndarray, "frame height width 3"]:
    """Return the coarse part of pictures: means of `AREAS` x `AREAS` areas, interpolated."""
    planes = torch.from_numpy(pictures).movedim(-1, 1)
    means = functional.adaptive_avg_pool2d(planes, AREAS)
    smooth = functional.interpolate(means, size=planes.shape[-2:], mode="bilinear")
    return smooth.movedim(1, -1).contiguous().numpy()
