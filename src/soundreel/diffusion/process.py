"""The forward process, its posterior, and conversions between x0, epsilon and v.

Everything acts on each modality by itself with the same timestep (Ruan et al. 2023, section 3.1)
and indexes the tables of a (shortened) `Schedule`.
"""

from typing import Literal

from jaxtyping import Float, Float64, Int
from torch import Tensor

from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV

PredictionType = Literal["epsilon", "x0", "v"]
"""What a network estimates: noise, clean data, or v = sqrt(abar) noise - sqrt(1 - abar) x0."""


def extract(
    table: Float64[Tensor, " step"], timestep: Int[Tensor, " batch"], like: Tensor
) -> Float[Tensor, "batch *ones"]:
    """Look up one number per sample, with `like`'s dtype and singleton axes to multiply it."""
    values = table.to(timestep.device)[timestep].to(like.dtype)
    return values.reshape(-1, *(1 for _ in like.shape[1:])).to(like.device)


def q_sample(x0: AV, timestep: Int[Tensor, " batch"], noise: AV, schedule: Schedule) -> AV:
    """Draw x_t from q(x_t | x_0) with the given standard normal noise.

    Source:
        Ho et al. 2020, equation 4.
    """
    return x0.map(
        lambda clean, eps: (
            extract(schedule.sqrt_alpha_bar, timestep, clean) * clean
            + extract(schedule.sqrt_one_minus_alpha_bar, timestep, clean) * eps
        ),
        noise,
    )


def posterior_mean(x0: AV, xt: AV, timestep: Int[Tensor, " batch"], schedule: Schedule) -> AV:
    """Mean of q(x_{t-1} | x_t, x_0); at timestep 0 it is x0 (Ho et al. 2020, equation 7)."""
    return x0.map(
        lambda clean, noisy: (
            extract(schedule.posterior_mean_coef1, timestep, clean) * clean
            + extract(schedule.posterior_mean_coef2, timestep, clean) * noisy
        ),
        xt,
    )


def to_x0(
    output: AV,
    xt: AV,
    timestep: Int[Tensor, " batch"],
    schedule: Schedule,
    prediction_type: PredictionType,
) -> AV:
    """The clean estimate behind a network output."""
    if prediction_type == "x0":
        return output
    if prediction_type == "epsilon":
        return xt.map(
            lambda noisy, eps: (
                extract(schedule.sqrt_recip_alpha_bar, timestep, noisy) * noisy
                - extract(schedule.sqrt_recipm1_alpha_bar, timestep, noisy) * eps
            ),
            output,
        )
    if prediction_type == "v":
        return xt.map(
            lambda noisy, v: (
                extract(schedule.sqrt_alpha_bar, timestep, noisy) * noisy
                - extract(schedule.sqrt_one_minus_alpha_bar, timestep, noisy) * v
            ),
            output,
        )
    raise _unknown(prediction_type)


def to_epsilon(
    output: AV,
    xt: AV,
    timestep: Int[Tensor, " batch"],
    schedule: Schedule,
    prediction_type: PredictionType,
) -> AV:
    """The noise estimate behind a network output."""
    if prediction_type == "epsilon":
        return output
    if prediction_type == "x0":
        return xt.map(
            lambda noisy, clean: (
                (extract(schedule.sqrt_recip_alpha_bar, timestep, noisy) * noisy - clean)
                / extract(schedule.sqrt_recipm1_alpha_bar, timestep, noisy)
            ),
            output,
        )
    if prediction_type == "v":
        return xt.map(
            lambda noisy, v: (
                extract(schedule.sqrt_alpha_bar, timestep, noisy) * v
                + extract(schedule.sqrt_one_minus_alpha_bar, timestep, noisy) * noisy
            ),
            output,
        )
    raise _unknown(prediction_type)


def training_target(
    x0: AV,
    timestep: Int[Tensor, " batch"],
    noise: AV,
    schedule: Schedule,
    prediction_type: PredictionType,
) -> AV:
    """What a perfect network would answer (v: Salimans and Ho 2022, appendix D)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "x0":
        return x0
    if prediction_type == "v":
        return x0.map(
            lambda clean, eps: (
                extract(schedule.sqrt_alpha_bar, timestep, clean) * eps
                - extract(schedule.sqrt_one_minus_alpha_bar, timestep, clean) * clean
            ),
            noise,
        )
    raise _unknown(prediction_type)


def model_log_variance(
    variance_output: AV | None, xt: AV, timestep: Int[Tensor, " batch"], schedule: Schedule
) -> AV:
    """Log-variance of p(x_{t-1} | x_t).

    Without a `variance_output` it is the schedule's fixed large variance. With one, it runs from
    the posterior log-variance (output -1) to log beta (output 1).

    Source:
        Nichol and Dhariwal 2021, equation 15.
    """
    if variance_output is None:
        table = schedule.fixed_large_variance.log()
        return xt.map(lambda noisy: extract(table, timestep, noisy).expand_as(noisy))

    def interpolate(noisy: Tensor, output: Tensor) -> Tensor:
        low = extract(schedule.posterior_log_variance_clipped, timestep, noisy)
        high = extract(schedule.betas.log(), timestep, noisy)
        share = (output + 1) / 2
        return share * high + (1 - share) * low

    return xt.map(interpolate, variance_output)


def _unknown(prediction_type: str) -> ValueError:
    return ValueError(f"prediction_type is 'epsilon', 'x0' or 'v', got {prediction_type!r}")
