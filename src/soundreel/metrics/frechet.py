"""Frechet distance between two sets of features, with an interval and a size-corrected estimate.

With means m1, m2 and unbiased covariances S1, S2 the distance of the two fitted Gaussians is

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1^(1/2) S2 S1^(1/2))^(1/2))

(Dowson and Landau 1982; Heusel et al. 2017). The last trace is the nuclear norm of S1^(1/2)
S2^(1/2), so that any factors F with F^T F = S give it as the sum of the singular values of F1
F2^T: no matrix square root, no complex numbers, no fudge on the diagonal. All sums are float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.errors import SoundreelError

Features = Float[Tensor, "_sample _dim"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A number with a bootstrap interval.

    `low` and `high` enclose it with probability `level`; `num_real` and `num_fake` are the counts
    of samples behind it.
    """

    value: float
    low: float
    high: float
    level: float
    num_real: int
    num_fake: int


def check_features(real: Features, fake: Features, minimum: int = 2) -> None:
    """Raise `SoundreelError` unless both sets have one width, enough rows and finite values."""
    if real.shape[1] != fake.shape[1]:
        raise SoundreelError(
            f"both sets need features of one width, got {real.shape[1]} and {fake.shape[1]}: "
            "they come from different extractors"
        )
    for name, features in (("real", real), ("generated", fake)):
        if features.shape[0] < minimum:
            raise SoundreelError(
                f"{features.shape[0]} {name} samples; this distance needs at least {minimum}: "
                "give more clips"
            )
        if not bool(torch.isfinite(features).all()):
            row = int((~torch.isfinite(features)).any(dim=1).nonzero()[0, 0])
            raise SoundreelError(f"feature row {row} of the {name} samples is not finite")


def covariance_factor(features: Features) -> Float[Tensor, "_rank _dim"]:
    """Return a matrix F with F^T F = unbiased covariance and no more than `dim` rows."""
    centred = features.double() - features.double().mean(dim=0)
    factor = centred / (features.shape[0] - 1) ** 0.5
    if factor.shape[0] > factor.shape[1]:
        factor = torch.linalg.qr(factor, mode="r").R
    return factor


def frechet_distance(real: Features, fake: Features) -> float:
    """Compute the Frechet distance of two feature sets from unbiased covariances, in float64.

    Positively biased by a term of order 1 / number of samples: compare only figures of equal
    counts.

    Raises:
        SoundreelError: fewer than two samples on a side, other widths, or values not finite.

    Source:
        Heusel et al. 2017, equation 6.
    """
    check_features(real, fake)
    factor_real, factor_fake = covariance_factor(real), covariance_factor(fake)
    cross = torch.linalg.svdvals(factor_real @ factor_fake.T).sum()
    mean_gap = (real.double().mean(dim=0) - fake.double().mean(dim=0)).square().sum()
    traces = factor_real.square().sum() + factor_fake.square().sum()
    return float(mean_gap + traces - 2 * cross)


def frechet_interval(
    real: Features,
    fake: Features,
    generator: torch.Generator,
    num_resamples: int = 200,
    level: float = 0.95,
) -> Estimate:
    """Compute the Frechet distance with a bootstrap interval over both sets.

    Resampling with replacement makes the distance larger on average (repeated rows lower the rank),
    so the spread of the resampled distances is centred on the estimate.

    Args:
        generator: a CPU generator; the same seed gives the same interval.
        level: probability of the interval, within (0, 1).
    """
    value = frechet_distance(real, fake)
    draws = torch.tensor(
        [
            frechet_distance(_resample(real, generator), _resample(fake, generator))
            for _ in range(num_resamples)
        ],
        dtype=torch.float64,
    )
    return centred_interval(value, draws, level, real.shape[0], fake.shape[0])


def centred_interval(
    value: float,
    draws: Float[Tensor, " resample"],
    level: float,
    num_real: int,
    num_fake: int,
) -> Estimate:
    """Return the percentile interval of resampled values, their mean moved onto the estimate."""
    if not 0 < level < 1:
        raise ValueError(f"level is a probability within (0, 1), got {level}")
    tail = (1 - level) / 2
    low, high = (float(torch.quantile(draws - draws.mean(), q)) for q in (tail, 1 - tail))
    return Estimate(
        value=value,
        low=value + low,
        high=value + high,
        level=level,
        num_real=num_real,
        num_fake=num_fake,
    )


def _resample(features: Tensor, generator: torch.Generator) -> Tensor:
    count = features.shape[0]
    return features[torch.randint(count, (count,), generator=generator)]
