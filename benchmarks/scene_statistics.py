"""The arithmetic of `scene_quality.py`: agreement, events in sync, nearness, and their intervals.

All intervals are 95 % percentile bootstrap intervals over clips; of statistics by kind, over the
clips of each kind.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from soundreel.clip import Clip
from soundreel.data.scenes.render import DISCRETE_KINDS
from soundreel.metrics.sync.events import match_events
from soundreel.metrics.sync.score import sync_of_curves
from soundreel.metrics.sync.signals import (
    detect_motion_peaks,
    detect_onsets,
    motion_curves,
    sound_curves,
)
from soundreel.study.bootstrap import Estimate

NUM_RESAMPLES = 2000
TOLERANCE_S = 0.15
MAX_PARTNERS = 12

# Of lightning the picture's event is the flash, the sound's the thunder, late by design.
EVENT_KINDS = tuple(kind for kind in DISCRETE_KINDS if kind != "lightning")

# Motion and onset threshold of the detectors by height and frame rate: those that tell true from
# shuffled pairs of rendered clips best (`fit_event_thresholds.py`). The detectors' defaults find
# several onsets in one firework.
THRESHOLDS = {
    (64, 10): (5.0, 10.0),
    (64, 16): (7.0, 20.0),
    (128, 16): (8.0, 20.0),
}

EventRows = Float[np.ndarray, "clip 6"]
"""A clip a row: events matched, matched with sounds of other clips (mean), seen, heard; sync score
of its own sound, of other clips' sounds (mean)."""


def interval(value: float, resampled: Float[np.ndarray, " resample"]) -> Estimate:
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def mean_interval(values: Float[np.ndarray, " clip"], rng: np.random.Generator) -> Estimate:
    """The mean over clips."""
    chosen = rng.integers(len(values), size=(NUM_RESAMPLES, len(values)))
    return interval(float(values.mean()), values[chosen].mean(axis=1))


def agreement(left: Sequence[str], right: Sequence[str]) -> Bool[np.ndarray, " clip"]:
    """Where two classes of one clip are the same."""
    return np.array(left) == np.array(right)


def chance_agreement(left: Sequence[str], right: Sequence[str]) -> Float[np.ndarray, " clip"]:
    """Share of all clips whose right class is the left one of each clip: agreement by chance."""
    return (np.array(left)[:, None] == np.array(right)[None]).mean(axis=1)


def confusions(true: Sequence[str], found: Sequence[str]) -> list[tuple[str, str, int]]:
    """Pairs of true and found class that differ, with their counts, most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for pair in zip(true, found, strict=True):
        if pair[0] != pair[1]:
            counts[pair] = counts.get(pair, 0) + 1
    return sorted(((a, b, n) for (a, b), n in counts.items()), key=lambda entry: -entry[2])


def partners_of(own: int, count: int) -> list[int]:
    """A clip itself, then up to 12 others, whose sounds its picture is paired with by chance."""
    return [(own + turn) % count for turn in range(min(count, MAX_PARTNERS + 1))]


def thresholds_of(clip: Clip) -> tuple[float, float]:
    """Motion and onset threshold for clips of this size and rate.

    Raises:
        ValueError: none have been fitted.
    """
    if clip.frames is None or clip.waveform is None:
        raise ValueError("events need picture and sound")
    height, rate = clip.frames.shape[1], float(clip.frame_rate)
    if (height, rate) not in THRESHOLDS:
        raise ValueError(
            f"no thresholds for {height} pixels at {rate:g} frames a second; fit them:"
            f" fit_event_thresholds.py --size {height} --frame-rate {clip.frame_rate}"
        )
    return THRESHOLDS[height, rate]


def event_rows(clips: Sequence[Clip]) -> EventRows:
    """How well sound and picture of clips of one kind fit in time, and how well by chance.

    Chance pairs each picture with the sounds of up to 12 other clips.

    Raises:
        ValueError: fewer than two clips, or no thresholds for their size and rate.
    """
    if len(clips) < 2:
        raise ValueError("shuffled pairs need at least two clips of a kind")
    motion_threshold, onset_threshold = thresholds_of(clips[0])
    seen, heard, motions, sounds = [], [], [], []
    for clip in clips:
        if clip.frames is None or clip.waveform is None:
            raise ValueError("events need picture and sound")
        seen.append(detect_motion_peaks(clip.frames, clip.frame_rate, motion_threshold))
        heard.append(detect_onsets(clip.waveform, clip.sample_rate, onset_threshold))
        motions.append(motion_curves(clip.frames))
        sounds.append(sound_curves(clip.waveform, clip.sample_rate))
    rows = []
    for own, clip in enumerate(clips):
        partners = partners_of(own, len(clips))
        matched = [match_events(seen[own], heard[k], TOLERANCE_S).num_matched for k in partners]
        scores = [sync_of_curves(motions[own], sounds[k], clip.frame_rate).score for k in partners]
        counts = [len(seen[own]), len(heard[own])]
        rows.append(
            [matched[0], np.mean(matched[1:]), *counts, scores[0], np.mean(scores[1:])],
        )
    return np.array(rows, np.float64)


def sync_statistics(sums: Float[np.ndarray, "*resample 6"], count: int) -> np.ndarray:
    """F1, F1 of shuffled pairs, sync score, sync score of shuffled pairs, from sums of rows.

    F1 is 2 matched / (seen + heard) over all events of all clips; 0 where there are none at all, so
    that silence and standstill gain nothing.
    """
    events = np.maximum(sums[..., 2] + sums[..., 3], 1e-9)
    return np.stack(
        [
            2 * sums[..., 0] / events,
            2 * sums[..., 1] / events,
            sums[..., 4] / count,
            sums[..., 5] / count,
        ],
        axis=-1,
    )


def resampled_statistics(
    rows: EventRows, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "4"], Float[np.ndarray, "resample 4"]]:
    """The statistics of one kind, and those of resampled clips."""
    chosen = rng.integers(len(rows), size=(NUM_RESAMPLES, len(rows)))
    return (
        sync_statistics(rows.sum(axis=0), len(rows)),
        sync_statistics(rows[chosen].sum(axis=1), len(rows)),
    )


def share_between(low: np.ndarray, value: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Where a value lies from `low` (0) to `high` (1); nan where the two are the same."""
    span = high - low
    return np.where(span == 0, np.nan, (value - low) / np.where(span == 0, 1, span))


def compare_sync(
    generated: Mapping[str, EventRows], real: Mapping[str, EventRows], rng: np.random.Generator
) -> dict[str, dict[str, Estimate]]:
    """F1 and sync score of two sets, over the mean of the kinds that both hold.

    Returns:
        for "f1" and "score": "generated", "shuffled" (pairs of generated clips), "real",
        "real shuffled" and "share", which is (generated - shuffled) / (real - shuffled).
    """
    kinds = [kind for kind in generated if kind in real]
    if not kinds:
        return {}
    means = []
    for rows in (generated, real):
        each = [resampled_statistics(rows[kind], rng) for kind in kinds]
        means.append([np.mean([pair[side] for pair in each], axis=0) for side in (0, 1)])
    result = {}
    for name, column in (("f1", 0), ("score", 2)):
        (made, drawn_made), (true, drawn_true) = means
        table = {
            "generated": (made[column], drawn_made[:, column]),
            "shuffled": (made[column + 1], drawn_made[:, column + 1]),
            "real": (true[column], drawn_true[:, column]),
            "real shuffled": (true[column + 1], drawn_true[:, column + 1]),
        }
        order = ("shuffled", "generated", "real")
        value, draws = (share_between(*(table[n][side] for n in order)) for side in (0, 1))
        table["share"] = (value, draws)
        result[name] = {key: interval(float(v), draws) for key, (v, draws) in table.items()}
    return result


def near_share(
    distances: Float[np.ndarray, " clip"],
    ordinary: Float[np.ndarray, " real"],
    rng: np.random.Generator,
    quantile: float = 0.05,
) -> Estimate:
    """Share of distances below a quantile of the ordinary ones; both sets are resampled."""

    def share(own: np.ndarray, usual: np.ndarray) -> np.ndarray:
        limit = np.quantile(usual, quantile, axis=-1, keepdims=True)
        return (own < limit).mean(axis=-1)

    return _resampled_pair(share, distances, ordinary, rng)


def median_ratio(
    distances: Float[np.ndarray, " clip"],
    ordinary: Float[np.ndarray, " real"],
    rng: np.random.Generator,
) -> Estimate:
    """Median distance as a multiple of the ordinary one; both sets are resampled."""

    def ratio(own: np.ndarray, usual: np.ndarray) -> np.ndarray:
        return np.median(own, axis=-1) / np.median(usual, axis=-1)

    return _resampled_pair(ratio, distances, ordinary, rng)


def _resampled_pair(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    left: np.ndarray,
    right: np.ndarray,
    rng: np.random.Generator,
) -> Estimate:
    drawn = [x[rng.integers(len(x), size=(NUM_RESAMPLES, len(x)))] for x in (left, right)]
    return interval(float(statistic(left, right)), statistic(*drawn))
