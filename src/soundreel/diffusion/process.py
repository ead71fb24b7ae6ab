"""The forward process, its posterior, and conversions between x0, epsilon and v.

Everything acts on each modality by itself with the same timestep (Ruan et al. 2023, section 3.1).
A `NoiseLevel` holds alpha and sigma of x_t = alpha x_0 + sigma epsilon for every sample, so that
the same functions serve discrete steps and the solvers that work between them.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Float64, Int
from torch import Tensor

from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV

PredictionType = Literal["epsilon", "x0", "v"]
"""Estimate of a network: noise, clean data, or v = alpha noise - sigma x0."""


@dataclass(frozen=True, slots=True)
class NoiseLevel:
    """alpha and sigma of x_t = alpha x_0 + sigma epsilon, with alpha^2 + sigma^2 = 1."""

    alpha: Float64[Tensor, " batch"]
    sigma: Float64[Tensor, " batch"]


def noise_level(schedule: Schedule, timestep: Int[Tensor, " batch"]) -> NoiseLevel:
    """Return the noise level at steps of a (shortened) schedule."""
    return NoiseLevel(
        schedule.sqrt_alpha_bar.to(timestep.device)[timestep],
        schedule.sqrt_one_minus_alpha_bar.to(timestep.device)[timestep],
    )


def per_sample(values: Float[Tensor, " batch"], like: Tensor) -> Float[Tensor, "batch *ones"]:
    """Return one number for each sample, with `like`'s dtype and as many axes, to multiply it."""
    return values.to(like).reshape(-1, *(1 for _ in like.shape[1:]))


def q_sample(x0: AV, timestep: Int[Tensor, " batch"], noise: AV, schedule: Schedule) -> AV:
    """Draw x_t from q(x_t | x_0) with the given standard normal noise.

    Source:
        Ho et al. 2020, equation 4.
    """
    return add_noise(x0, noise, noise_level(schedule, timestep))


def add_noise(x0: AV, noise: AV, level: NoiseLevel) -> AV:
    """Return alpha x_0 + sigma epsilon."""
    return x0.map(
        lambda clean, eps: (
            per_sample(level.alpha, clean) * clean + per_sample(level.sigma, clean) * eps
        ),
        noise,
    )


def posterior_mean(x0: AV, xt: AV, timestep: Int[Tensor, " batch"], schedule: Schedule) -> AV:
    """Return the mean of q(x_{t-1} | x_t, x_0).

    Source:
        Ho et al. 2020, equation 7.
    """
    weight_x0 = schedule.posterior_mean_coef1.to(timestep.device)[timestep]
    weight_xt = schedule.posterior_mean_coef2.to(timestep.device)[timestep]
    return x0.map(
        lambda clean, noisy: (
            per_sample(weight_x0, clean) * clean + per_sample(weight_xt, clean) * noisy
        ),
        xt,
    )


def to_x0(output: AV, xt: AV, level: NoiseLevel, prediction_type: PredictionType) -> AV:
    """Return the clean estimate behind a network output."""
    if prediction_type == "x0":
        return output
    if prediction_type == "epsilon":
        return xt.map(
            lambda noisy, eps: (
                (noisy - per_sample(level.sigma, noisy) * eps) / per_sample(level.alpha, noisy)
            ),
            output,
        )
    if prediction_type == "v":
        return xt.map(
            lambda noisy, v: (
                per_sample(level.alpha, noisy) * noisy - per_sample(level.sigma, noisy) * v
            ),
            output,
        )
    raise _unknown(prediction_type)


def to_epsilon(output: AV, xt: AV, level: NoiseLevel, prediction_type: PredictionType) -> AV:
    """Return the noise estimate behind a network output."""
    if prediction_type == "epsilon":
        return output
    if prediction_type == "x0":
        return xt.map(
            lambda noisy, clean: (
                (noisy - per_sample(level.alpha, noisy) * clean) / per_sample(level.sigma, noisy)
            ),
            output,
        )
    if prediction_type == "v":
        return xt.map(
            lambda noisy, v: (
                per_sample(level.alpha, noisy) * v + per_sample(level.sigma, noisy) * noisy
            ),
            output,
        )
    raise _unknown(prediction_type)


def training_target(x0: AV, noise: AV, level: NoiseLevel, prediction_type: PredictionType) -> AV:
    """Return what a perfect network would answer (v: Salimans and Ho 2022, appendix D)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "x0":
        return x0
    if prediction_type == "v":
        return x0.map(
            lambda clean, eps: (
                per_sample(level.alpha, clean) * eps - per_sample(level.sigma, clean) * clean
            ),
            noise,
        )
    raise _unknown(prediction_type)


def model_log_variance(
    variance_output: AV | None, xt: AV, timestep: Int[Tensor, " batch"], schedule: Schedule
) -> AV:
    """Return the log-variance of p(x_{t-1} | x_t).

    Without a `variance_output` it is the schedule's fixed large variance. With one, it runs from
    the posterior log-variance (output -1) to log beta (output 1).

    Source:
        Nichol and Dhariwal 2021, equation 15.
    """
    if variance_output is None:
        fixed = schedule.fixed_large_variance.log().to(timestep.device)[timestep]
        return xt.map(lambda noisy: per_sample(fixed, noisy).expand_as(noisy))
    low = schedule.posterior_log_variance_clipped.to(timestep.device)[timestep]
    high = schedule.betas.log().to(timestep.device)[timestep]

    def interpolate(noisy: Tensor, output: Tensor) -> Tensor:
        share = (output + 1) / 2
        return share * per_sample(high, noisy) + (1 - share) * per_sample(low, noisy)

    return xt.map(interpolate, variance_output)


def _unknown(prediction_type: str) -> ValueError:
    return ValueError(f"prediction_type is 'epsilon', 'x0' or 'v', got {prediction_type!r}")
