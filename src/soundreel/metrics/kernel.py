"""Polynomial-kernel distance (squared maximum mean discrepancy) between two sets of features.

With k(x, y) = (x.y / dim + 1)^3 the unbiased estimate leaves out the pairs of a sample with itself:

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Gretton et al. 2012, equation 3; Binkowski et al. 2018 for the kernel). It may be negative where
the two sets come from one distribution.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.metrics.frechet import Estimate, Features, centred_interval, check_features


@dataclass(frozen=True, kw_only=True, slots=True)
class PolynomialKernel:
    """k(x, y) = (gamma x.y + offset)^degree; `gamma` 1 / dim where it is None."""

    degree: int = 3
    gamma: float | None = None
    offset: float = 1.0

    def __call__(
        self, left: Float[Tensor, "left dim"], right: Float[Tensor, "right dim"]
    ) -> Float[Tensor, "left right"]:
        gamma = 1 / left.shape[1] if self.gamma is None else self.gamma
        return (gamma * left.double() @ right.double().T + self.offset) ** self.degree


DEFAULT_KERNEL = PolynomialKernel()


def kernel_distance(
    real: Features, fake: Features, kernel: PolynomialKernel = DEFAULT_KERNEL
) -> float:
    """Compute the unbiased squared maximum mean discrepancy of two feature sets, in float64.

    Raises:
        SoundreelError: fewer than two samples on a side, other widths, or values not finite.

    Source:
        Binkowski et al. 2018, section 4 (over all samples, not over blocks).
    """
    check_features(real, fake)
    ones_real = torch.ones(1, real.shape[0], dtype=torch.float64)
    ones_fake = torch.ones(1, fake.shape[0], dtype=torch.float64)
    grams = (kernel(real, real), kernel(fake, fake), kernel(real, fake))
    return float(_weighted(*grams, ones_real, ones_fake)[0])


def kernel_interval(
    real: Features,
    fake: Features,
    generator: torch.Generator,
    num_resamples: int = 1000,
    level: float = 0.95,
    kernel: PolynomialKernel = DEFAULT_KERNEL,
) -> Estimate:
    """Compute the kernel distance with a bootstrap interval over both sets.

    A resample is a weight for every sample; pairs of copies of one sample stay left out, so that
    resampling adds no bias.
    """
    check_features(real, fake, minimum=3)
    grams = (kernel(real, real), kernel(fake, fake), kernel(real, fake))
    weights_real = _weights(real.shape[0], num_resamples, generator)
    weights_fake = _weights(fake.shape[0], num_resamples, generator)
    draws = _weighted(*grams, weights_real, weights_fake)
    value = kernel_distance(real, fake, kernel)
    return centred_interval(value, draws, level, real.shape[0], fake.shape[0])


def _weights(
    count: int, num_resamples: int, generator: torch.Generator
) -> Float[Tensor, "resample count"]:
    """Draw how often each sample occurs in each resample; one of a single sample is drawn again."""
    weights = torch.zeros(num_resamples, count, dtype=torch.float64)
    todo = torch.arange(num_resamples)
    while len(todo):
        drawn = torch.randint(count, (len(todo), count), generator=generator)
        ones = torch.ones(drawn.shape, dtype=torch.float64)
        weights[todo] = torch.zeros_like(ones).scatter_add_(1, drawn, ones)
        todo = todo[(weights[todo] > 0).sum(dim=1) < 2]
    return weights


def _weighted(
    within_real: Float[Tensor, "real real"],
    within_fake: Float[Tensor, "fake fake"],
    between: Float[Tensor, "real fake"],
    weight_real: Float[Tensor, "resample real"],
    weight_fake: Float[Tensor, "resample fake"],
) -> Float[Tensor, " resample"]:
    """Compute the estimate for every row of weights."""

    def off_diagonal(gram: Tensor, weight: Tensor) -> Tensor:
        total = ((weight @ gram) * weight).sum(dim=1) - weight.square() @ gram.diagonal()
        return total / (weight.sum(dim=1).square() - weight.square().sum(dim=1))

    cross = ((weight_real @ between) * weight_fake).sum(dim=1)
    cross = cross / (weight_real.sum(dim=1) * weight_fake.sum(dim=1))
    return (
        off_diagonal(within_real, weight_real) + off_diagonal(within_fake, weight_fake) - 2 * cross
    )
