"""Means over raters and clips, with intervals that allow for other raters and other clips.

Ratings are not independent: one rater is strict, one clip is good. So raters and clips are drawn
anew, each with replacement, and a rating counts as often as its rater times its clip was drawn.

Source: Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2), 2007. The intervals are
on the wide side: the variance of a single rating is counted up to three times.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Ratings = Float[np.ndarray, "rater clip"]
"""One value per rater and clip; NaN where there is none."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; NaN bounds where there are not two raters and two clips."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """Means by system, and differences of the first system of a pair minus the second."""

    means: dict[str, Estimate]
    differences: dict[tuple[str, str], Estimate]


def estimate_means(
    ratings: Mapping[str, Ratings],
    rng: np.random.Generator,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Estimates:
    """Estimate the means of systems that the same raters have judged, and their differences.

    A difference is estimated with the same raters on both sides, so a strict rater weighs on both.

    Args:
        ratings: by system; rows are the same raters everywhere, columns the system's own clips.
            Every system has a rating.
        level: share of the resampled means within the interval.
    """
    num_raters = next(iter(ratings.values())).shape[0]
    raters = _multiplicities(rng, num_resamples, num_raters)
    values = {system: float(np.nanmean(matrix)) for system, matrix in ratings.items()}
    resampled = {
        system: _resampled_means(
            matrix, raters, _multiplicities(rng, num_resamples, matrix.shape[1])
        )
        for system, matrix in ratings.items()
    }
    enough = {s: min(_filled(matrix)) >= 2 for s, matrix in ratings.items()}
    systems = list(ratings)
    pairs = [(a, b) for k, a in enumerate(systems) for b in systems[k + 1 :]]
    return Estimates(
        means={s: _estimate(values[s], resampled[s], enough[s], level) for s in systems},
        differences={
            (a, b): _estimate(
                values[a] - values[b], resampled[a] - resampled[b], enough[a] and enough[b], level
            )
            for a, b in pairs
        },
    )


def _multiplicities(
    rng: np.random.Generator, num_resamples: int, count: int
) -> Int[np.ndarray, "resample item"]:
    """Draw how often each of `count` items occurs in `count` draws with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=num_resamples)


def _resampled_means(
    ratings: Ratings,
    raters: Int[np.ndarray, "resample rater"],
    clips: Int[np.ndarray, "resample clip"],
) -> Float[np.ndarray, " resample"]:
    given = ~np.isnan(ratings)
    totals = ((raters @ np.where(given, ratings, 0)) * clips).sum(axis=1)
    counts = ((raters @ given.astype(float)) * clips).sum(axis=1)
    return np.divide(totals, counts, out=np.full(len(totals), np.nan), where=counts > 0)


def _filled(ratings: Ratings) -> tuple[int, int]:
    """Count the raters and the clips with a rating."""
    given = ~np.isnan(ratings)
    return int(given.any(axis=1).sum()), int(given.any(axis=0).sum())


def _estimate(
    value: float, resampled: Float[np.ndarray, " resample"], is_enough: bool, level: float
) -> Estimate:
    """Return the percentile interval without the rare resamples that hold no rating."""
    if not is_enough:
        return Estimate(value, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
