"""The recommended sync score: correlation of the curves of sound and picture, against chance.

The correlation is that of the fluxes plus 0.3 times that of the levels (see `signals`).
Busy sound meets busy pictures by chance. The score therefore says by how many standard deviations
it exceeds, at the true time, that of the same curves turned against each other, and
the p-value how often chance does as well. The lag of the best correlation is the offset estimate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float

from soundreel.errors import SoundreelError
from soundreel.metrics.sync.signals import (
    Frames,
    MotionCurves,
    SoundCurves,
    Waveform,
    check_measurable,
    motion_curves,
    sound_curves,
)
from soundreel.metrics.sync.turns import LEVEL_WEIGHT, circular_correlations, offset_p_value

LAG_STEP_S = 0.01
PRIOR = 0.2  # how much less a correlation counts at the largest offset than at none
AMBIGUITY = 0.95
EVIDENCE = 0.05  # the largest p-value that counts as evidence
IN_SYNC_S = 0.04
VALUES_AT_ONCE = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Sync:
    """Fit of one clip's sound to its picture.

    Attributes:
        score: standard deviations above chance of the correlation at zero offset. 0 is chance;
            rendered scenes reach 2 to 8.
        p_value: how often turned curves correlate as well; small means not by chance.
        correlation: of the onset curves at zero offset, -1 to 1.
        offset_s: by how much the sound comes late (positive) or early (negative) against the
            picture, as estimated; None where nothing starts in the sound or in the picture.
        offset_correlation: correlation once that offset is undone.
        offset_p_value: how often sound whose pieces are shuffled correlates as well at any of the
            offsets that were searched; 1 where there is no offset.
        is_ambiguous: another offset fits almost as well, as with a regular beat.
    """

    score: float
    p_value: float
    correlation: float
    offset_s: float | None
    offset_correlation: float
    offset_p_value: float
    is_ambiguous: bool

    @property
    def has_evidence(self) -> bool:
        """Tell whether the offset is more than chance would give, and no other fits as well."""
        return self.offset_p_value <= EVIDENCE and not self.is_ambiguous

    def in_words(self) -> str:
        """Return one line for people; it claims nothing for which the p-values give no evidence."""
        if self.offset_s is None:
            return "no evidence: nothing starts to sound or to move"
        figures = f"score {self.score:.1f} (0 is chance), p {self.p_value:.3f}"
        if self.offset_p_value > EVIDENCE:
            if self.p_value <= EVIDENCE:
                return f"{figures}: related, but no evidence of an offset"
            return f"{figures}: no evidence that sound and picture belong together"
        if abs(self.offset_s) < IN_SYNC_S:
            verdict = "in sync"
        else:
            verdict = f"sound {abs(self.offset_s):.2f} s {'late' if self.offset_s > 0 else 'early'}"
        doubt = ", or a multiple of its beat" if self.is_ambiguous else ""
        return f"{figures} as it is; {verdict}{doubt}, p {self.offset_p_value:.3f}"


def measure_sync(
    frames: Frames,
    frame_rate: Fraction,
    waveform: Waveform,
    sample_rate: int,
    max_offset_s: float = 0.5,
) -> Sync:
    """Measure score and offset of one clip.

    A clip in which nothing starts to sound or to move scores 0 with p-value 1.

    Args:
        max_offset_s: how far the offset is searched for on both sides.

    Raises:
        SyncError: shorter than 1 s, fewer than 8 frames a second, or sound below 8 kHz.
    """
    check_measurable(len(frames), frame_rate, waveform.shape[1], sample_rate)
    return sync_of_curves(
        motion_curves(frames), sound_curves(waveform, sample_rate), frame_rate, max_offset_s
    )


def sync_of_curves(
    motion: MotionCurves, sound: SoundCurves, frame_rate: Fraction, max_offset_s: float = 0.5
) -> Sync:
    """Measure as `measure_sync` does, from the curves."""
    edges_s = np.arange(len(motion.flux) + 1) / float(frame_rate)
    flux, _ = sound.between(edges_s)
    if np.ptp(flux) < 1e-9 or np.ptp(motion.flux) < 1e-9:
        return Sync(
            score=0.0,
            p_value=1.0,
            correlation=0.0,
            offset_s=None,
            offset_correlation=0.0,
            offset_p_value=1.0,
            is_ambiguous=True,
        )
    correlation, chance = circular_correlations(motion, sound, frame_rate)
    lags_s, curve = correlation_curve(motion, sound, frame_rate, max_offset_s)
    best = int(np.argmax(curve * (1 - PRIOR * np.abs(lags_s) / max_offset_s)))
    offset_s = _refined(lags_s, curve, best)
    return Sync(
        score=float((correlation - chance.mean()) / max(float(chance.std()), 1e-9)),
        p_value=float((1 + (chance >= correlation).sum()) / (1 + len(chance))),
        correlation=correlation / (1 + LEVEL_WEIGHT),
        offset_s=offset_s,
        offset_correlation=float(curve[best]) / (1 + LEVEL_WEIGHT),
        offset_p_value=offset_p_value(motion, sound, frame_rate, offset_s, max_offset_s),
        is_ambiguous=_has_rival(lags_s, curve, best, 1.5 / float(frame_rate)),
    )


def correlation_curve(
    motion: MotionCurves, sound: SoundCurves, frame_rate: Fraction, max_offset_s: float
) -> tuple[Float[np.ndarray, " lag"], Float[np.ndarray, " lag"]]:
    """Correlate the picture with the sound taken `lag` seconds later, for lags both ways.

    Only times at which both are within the clip count, so that a lag gains nothing from silence
    beyond the ends; lags that leave less than half of the clip count as 0.
    """
    duration_s = len(motion.flux) / float(frame_rate)
    edges_s = np.arange(len(motion.flux) + 1) / float(frame_rate)
    count = round(max_offset_s / LAG_STEP_S)
    lags_s = np.arange(-count, count + 1) * LAG_STEP_S
    curves = []
    for lags in np.array_split(lags_s, 1 + len(lags_s) * len(edges_s) // VALUES_AT_ONCE):
        heard_s = edges_s[None] + lags[:, None]
        flux, level = sound.between(heard_s)
        within = (heard_s[:, :-1] >= -1e-9) & (heard_s[:, 1:] <= duration_s + 1e-9)
        curve = _masked_correlation(motion.flux, flux, within)
        curve += LEVEL_WEIGHT * _masked_correlation(motion.level, level, within)
        curve[within.mean(axis=1) < 0.5] = 0
        curves.append(curve)
    return lags_s, np.concatenate(curves)


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncSummary:
    """Sync of many clips.

    Attributes:
        num_clips: clips measured.
        mean_score: mean of the chance-corrected scores.
        share_in_sync: share with p-value at most 0.05.
        mean_absolute_offset_s: mean of |offset|, never of the signed offsets, which would let late
            clips make up for early ones.
        median_offset_s: signed, to see a common delay.
    """

    num_clips: int
    mean_score: float
    share_in_sync: float
    mean_absolute_offset_s: float
    median_offset_s: float


def summarise(results: Iterable[Sync]) -> SyncSummary:
    """Summarise many clips; those without an offset are left out of the offsets.

    Raises:
        SoundreelError: no results.
    """
    results = list(results)
    if not results:
        raise SoundreelError("no clip whose sync could be measured")
    offsets = np.array([r.offset_s for r in results if r.offset_s is not None])
    return SyncSummary(
        num_clips=len(results),
        mean_score=float(np.mean([r.score for r in results])),
        share_in_sync=float(np.mean([r.p_value <= 0.05 for r in results])),
        mean_absolute_offset_s=float(np.abs(offsets).mean()) if len(offsets) else float("nan"),
        median_offset_s=float(np.median(offsets)) if len(offsets) else float("nan"),
    )


def _masked_correlation(
    seen: Float[np.ndarray, " interval"],
    heard: Float[np.ndarray, "lag interval"],
    within: Bool[np.ndarray, "lag interval"],
) -> Float[np.ndarray, " lag"]:
    """Correlate at every lag over the intervals that lie within."""
    count = np.maximum(within.sum(axis=1, keepdims=True), 1)
    a, b = (
        np.where(within, x - np.where(within, x, 0).sum(axis=1, keepdims=True) / count, 0)
        for x in (np.broadcast_to(seen, heard.shape), heard)
    )
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return (a * b).sum(axis=1) / np.maximum(spread, 1e-12)


def _refined(
    lags_s: Float[np.ndarray, " lag"], curve: Float[np.ndarray, " lag"], best: int
) -> float:
    """Find the centre of the peak's top: the mean lag of what exceeds 90 % of it, joined to it."""
    level = 0.9 * curve[best]
    first = last = best
    while first > 0 and curve[first - 1] >= level:
        first -= 1
    while last < len(curve) - 1 and curve[last + 1] >= level:
        last += 1
    return float(
        np.average(lags_s[first : last + 1], weights=curve[first : last + 1] - level + 1e-9)
    )


def _has_rival(
    lags_s: Float[np.ndarray, " lag"], curve: Float[np.ndarray, " lag"], best: int, reach_s: float
) -> bool:
    """Tell whether a lag further away than `reach_s` correlates almost as well."""
    far = np.abs(lags_s - lags_s[best]) > reach_s
    return bool(far.any() and curve[far].max() > AMBIGUITY * curve[best])
