"""Join windows of a film where both sides of a border have made the same stretch of time.

Sound is cross-faded for a few milliseconds, at the place of the overlap where the two sides agree
best in phase; pictures are cross-faded over the whole overlap. Where the left side has to stay as
it is, because it is somebody's own clip, the difference at the border is taken into the right side
and let fade there.
"""

import numpy as np
from jaxtyping import Float, Float32, UInt8

FADE_S = 0.01
"""Length of a cross-fade of sound: shorter clicks, longer is heard as two voices."""

Frames = UInt8[np.ndarray, "frame height width 3"]
Sound = Float32[np.ndarray, "channel sample"]


def fade_pictures(left: Frames, right: Frames) -> Frames:
    """Return `left` turning evenly into `right`; frame i of K has weight (i + 1) / (K + 1).

    So each of the K + 1 changes at and within the overlap takes an equal share of the difference.
    """
    weight = (np.arange(len(left), dtype=np.float32) + 1) / (len(left) + 1)
    weight = weight[:, None, None, None]
    return np.rint(left + weight * (right.astype(np.float32) - left)).astype(np.uint8)


def fade_sound(left: Sound, right: Sound, fade: int) -> Sound:
    """Return `left` up to the place where the sides agree best, `right` after it, faded between.

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
    """Find where `length` samples of both sides are most alike.

    Returns:
        First sample of the stretch, and the normalised correlation there, within [-1, 1]. Of
        equally good places it is the one nearest to the middle; where one side is silent it is 0.
    """
    products = _sliding_sum(left.astype(np.float64) * right, length)
    energies = _sliding_sum(left.astype(np.float64) ** 2, length) * _sliding_sum(
        right.astype(np.float64) ** 2, length
    )
    heard = energies > 1e-20
    correlation = np.where(heard, products / np.sqrt(np.where(heard, energies, 1.0)), 0.0)
    best = np.flatnonzero(correlation >= correlation.max() - 1e-9)
    place = int(best[np.abs(best - (len(correlation) - 1) / 2).argmin()])
    return place, float(np.clip(correlation[place], -1.0, 1.0))


def meet_pictures(
    last: Frames,
    shared: Frames,
    following: UInt8[np.ndarray, "following height width 3"],
) -> UInt8[np.ndarray, "following height width 3"]:
    """Return `following` so that it goes on from `last` without a jump.

    Args:
        last: the final frame of the left side (one frame), which stays as it is.
        shared: the right side's own idea of that frame.
        following: frames of the right side after it. The difference between the two fades evenly
            over them.
    """
    weight = 1 - (np.arange(len(following), dtype=np.float32) + 1) / (len(following) + 1)
    difference = last.astype(np.float32) - shared
    moved = following + weight[:, None, None, None] * difference
    return np.rint(moved).clip(0, 255).astype(np.uint8)


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


def _sliding_sum(
    values: Float[np.ndarray, "channel sample"], length: int
) -> Float[np.ndarray, " place"]:
    total = np.concatenate([[0.0], np.cumsum(values.sum(axis=0))])
    return total[length:] - total[:-length]
