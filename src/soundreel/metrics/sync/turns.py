"""Chance levels of the correlation of sound and picture: the sound turned, or its pieces shuffled.

Turned as a whole against the picture, the sound shows what chance gives at one time. Where the
best of many times is looked for, chance gives more: for that the sound is cut into pieces of about
half a second, which are put together in another order.
"""

from fractions import Fraction

import numpy as np
from jaxtyping import Float

from soundreel.metrics.sync.signals import FLOOR_POWER, MotionCurves, SoundCurves

LEVEL_WEIGHT = 0.3
TURN_STEP_S = 0.02
NUM_SHUFFLES = 199
PIECE_S = 0.5
MIN_PIECES = 6  # of short clips: shorter pieces, or there would be too few orders
VALUES_AT_ONCE = 200_000


def circular_correlations(
    motion: MotionCurves, sound: SoundCurves, frame_rate: Fraction
) -> tuple[float, Float[np.ndarray, " shift"]]:
    """Correlate as it is, and after turning the sound by every multiple of 20 ms or less.

    Turns of up to one frame either way are left out: they are no chance pairs.
    """
    flux, power, parts = _steps(motion, sound, frame_rate)
    (turns,) = _turned(motion, flux[None], power[None], parts)
    return float(turns[0]), turns[parts + 1 : -parts]


def offset_p_value(
    motion: MotionCurves,
    sound: SoundCurves,
    frame_rate: Fraction,
    offset_s: float,
    max_offset_s: float,
) -> float:
    """Return how often shuffled sound correlates as well, at any offset that was searched.

    Args:
        offset_s: the offset found, within `max_offset_s` on both sides; its neighbourhood of a
            frame either way counts.

    Returns:
        1 / 200 to 1. It allows for the search: of unrelated pairs 5 % fall below 0.05. The shuffles
        are always the same, so equal curves give equal values.
    """
    flux, power, parts = _steps(motion, sound, frame_rate)
    num_steps = len(flux)
    steps_a_second = parts * float(frame_rate)
    reach = int(max_offset_s * steps_a_second)
    searched = np.unique(np.arange(-reach, reach + 1) % num_steps)
    near = np.round(offset_s * steps_a_second).astype(int) + np.arange(-parts, parts + 1)
    (turns,) = _turned(motion, flux[None], power[None], parts)
    found = turns[near % num_steps].max()

    rng = np.random.default_rng(0)
    duration_s = num_steps / steps_a_second
    num_pieces = max(MIN_PIECES, round(duration_s / PIECE_S))
    cuts = np.round(np.linspace(0, num_steps, num_pieces + 1)[1:-1]).astype(int)
    rows = max(1, VALUES_AT_ONCE // num_steps)
    reached = 0
    for first in range(0, NUM_SHUFFLES, rows):
        orders = []
        for _ in range(min(rows, NUM_SHUFFLES - first)):
            pieces = np.split(np.roll(np.arange(num_steps), rng.integers(num_steps)), cuts)
            orders.append(np.concatenate([pieces[k] for k in rng.permutation(num_pieces)]))
        chance = _turned(motion, flux[np.stack(orders)], power[np.stack(orders)], parts)
        reached += int((chance[:, searched].max(axis=1) >= found).sum())
    return (1 + reached) / (1 + NUM_SHUFFLES)


def _steps(
    motion: MotionCurves, sound: SoundCurves, frame_rate: Fraction
) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, " step"], int]:
    """Return flux and power of the sound in steps of about 20 ms, and how many make a frame."""
    parts = max(1, round(1 / float(frame_rate) / TURN_STEP_S))
    edges_s = np.arange(len(motion.flux) * parts + 1) / (parts * float(frame_rate))
    flux, level = sound.between(edges_s)
    return flux, np.exp(level) - FLOOR_POWER, parts


def _turned(
    motion: MotionCurves,
    flux: Float[np.ndarray, "sound step"],
    power: Float[np.ndarray, "sound step"],
    parts: int,
) -> Float[np.ndarray, "sound step"]:
    """Correlate the picture with each sound from every step on; entry 0 is as it is."""
    total = len(motion.flux)
    turns = np.zeros((len(flux), total, parts))
    for part in range(parts):
        turned = np.roll(flux, -part, axis=1).reshape(-1, total, parts).sum(axis=2)
        turned_power = np.roll(power, -part, axis=1).reshape(-1, total, parts).mean(axis=2)
        for weight, seen, heard in (
            (1.0, motion.flux, turned),
            (LEVEL_WEIGHT, motion.level, np.log(turned_power + FLOOR_POWER)),
        ):
            # entry k: the sound from k frames later on
            spectrum = np.conj(np.fft.rfft(_standard(seen))) * np.fft.rfft(_standard(heard))
            turns[:, :, part] += weight * np.fft.irfft(spectrum, total) / total
    return turns.reshape(len(flux), -1)


def _standard(
    values: Float[np.ndarray, "*sound interval"],
) -> Float[np.ndarray, "*sound interval"]:
    centred = values - values.mean(axis=-1, keepdims=True)
    spread = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True))
    return centred / np.maximum(spread, 1e-12)
