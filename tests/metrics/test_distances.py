"""Frechet and kernel distances: closed forms, scipy, intervals, and the faults of known
evaluators.
"""

import numpy as np
import pytest
import scipy.linalg
import torch

from soundreel.metrics.frechet import (
    frechet_distance,
    frechet_interval,
)
from soundreel.metrics.kernel import PolynomialKernel, kernel_distance, kernel_interval


def gaussian(count, dim, seed, mean=0.0, std=1.0):
    generator = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(count, dim, generator=generator, dtype=torch.float64)


def with_exact_moments(features, mean, std):
    """Whiten the rows so that their sample mean and covariance are exactly mean, std^2."""
    centred = features - features.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(centred.T))
    white = centred @ vectors / values.sqrt()
    return mean + white * std


def test_frechet_distance_of_samples_with_exact_moments_is_the_closed_form():
    std_real, std_fake = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.5])
    mean_real, mean_fake = torch.zeros(3), torch.tensor([1.0, -2.0, 0.5])
    real = with_exact_moments(gaussian(500, 3, 0), mean_real, std_real)
    fake = with_exact_moments(gaussian(400, 3, 1), mean_fake, std_fake)
    expected = float(((mean_real - mean_fake) ** 2).sum() + ((std_real - std_fake) ** 2).sum())
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("count", "dim"), [(300, 20), (12, 40)])
def test_frechet_distance_agrees_with_scipy_square_root(count, dim):
    mixing = gaussian(dim, dim, 3)
    real, fake = gaussian(count, dim, 1) @ mixing, gaussian(count, dim, 2, mean=0.3) @ mixing.T
    a, b = np.cov(real.numpy().T), np.cov(fake.numpy().T)
    # A rank-deficient product has no stable Schur root: scipy is asked for the symmetric ones.
    half = scipy.linalg.sqrtm(a + 1e-13 * np.eye(dim)).real
    inner = np.linalg.eigvalsh(half @ b @ half).clip(min=0)
    gap = real.mean(0) - fake.mean(0)
    expected = float(gap @ gap) + np.trace(a) + np.trace(b) - 2 * np.sqrt(inner).sum()
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-4)


def test_same_features_twice_are_at_distance_zero():
    x = gaussian(60, 30, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x.clone()) == frechet_distance(x, x)
    assert kernel_distance(x, x) == kernel_distance(x, x.clone())


def test_kernel_distance_is_unbiased_under_one_distribution():
    values = [
        kernel_distance(gaussian(20, 8, 2 * k), gaussian(20, 8, 2 * k + 1)) for k in range(200)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0  # a biased estimate would be positive throughout


def test_kernel_distance_sees_a_shift_of_the_mean():
    real = gaussian(200, 16, 0)
    values = [kernel_distance(real, gaussian(200, 16, 1, mean=m)) for m in (0.0, 0.3, 0.6)]
    assert values[0] < values[1] < values[2]
    assert values[2] > 20 * abs(values[0])


def test_kernel_distance_equals_the_written_out_sum():
    real, fake = gaussian(5, 3, 0), gaussian(4, 3, 1)
    kernel = PolynomialKernel(degree=2, gamma=0.7, offset=0.2)

    def k(x, y):
        return (0.7 * float(x @ y) + 0.2) ** 2

    expected = sum(k(a, b) for i, a in enumerate(real) for j, b in enumerate(real) if i != j) / 20
    expected += sum(k(a, b) for i, a in enumerate(fake) for j, b in enumerate(fake) if i != j) / 12
    expected -= 2 * sum(k(a, b) for a in real for b in fake) / 20
    assert kernel_distance(real, fake, kernel) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("interval", [frechet_interval, kernel_interval])
def test_intervals_are_repeatable_and_shrink_with_more_samples(interval):
    def width(count):
        real, fake = gaussian(count, 6, 0), gaussian(count, 6, 1, mean=0.5)
        first = interval(real, fake, torch.Generator().manual_seed(7), num_resamples=100)
        again = interval(real, fake, torch.Generator().manual_seed(7), num_resamples=100)
        assert first == again
        assert first.low < first.value < first.high
        assert (first.num_real, first.num_fake) == (count, count)
        return first.high - first.low

    assert width(400) < 0.7 * width(50)


def test_kernel_interval_covers_the_true_distance_about_as_often_as_it_says():
    truth = kernel_distance(gaussian(4000, 4, 900), gaussian(4000, 4, 901, mean=0.4))
    hits = 0
    for k in range(60):
        real, fake = gaussian(60, 4, 2 * k), gaussian(60, 4, 2 * k + 1, mean=0.4)
        generator = torch.Generator().manual_seed(k)
        estimate = kernel_interval(real, fake, generator, num_resamples=200, level=0.9)
        hits += estimate.low <= truth <= estimate.high
    assert 46 <= hits <= 60


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_refuse_what_cannot_be_compared(distance):
    good = gaussian(10, 4, 0)
    with pytest.raises(ValueError, match="1 generated samples"):
        distance(good, good[:1])
    with pytest.raises(ValueError, match="different extractors"):
        distance(good, gaussian(10, 5, 0))
    broken = good.clone()
    broken[3, 1] = float("nan")
    with pytest.raises(ValueError, match="row 3"):
        distance(good, broken)
