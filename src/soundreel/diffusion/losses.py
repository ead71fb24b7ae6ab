"""Training losses: mean squared error and the variational bound, per sample and per modality.

A modality's error is averaged over its own elements, so video and audio count equally whatever
their sizes (Ruan et al. 2023, section 3.1).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from soundreel.diffusion.denoiser import Denoiser, Prediction, predict
from soundreel.diffusion.process import (
    PredictionType,
    model_log_variance,
    noise_level,
    per_sample,
    posterior_mean,
    q_sample,
    to_x0,
    training_target,
)
from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV

Objective = Literal["mse", "variational"]
VarianceType = Literal["fixed_large", "learned_range"]


@dataclass(frozen=True, slots=True)
class LossTerms:
    """Losses of a batch, not yet averaged over it.

    Args:
        loss: what to minimise.
        terms: its parts, by name: `mse_video`, `mse_audio`, and for learned variances `vb_video`,
            `vb_audio` (bits per element).
    """

    loss: Float[Tensor, " batch"]
    terms: Mapping[str, Float[Tensor, " batch"]]


def diffusion_loss(
    denoiser: Denoiser,
    x0: AV,
    timestep: Int[Tensor, " batch"],
    noise: AV,
    schedule: Schedule,
    *,
    prediction_type: PredictionType = "epsilon",
    variance: VarianceType = "fixed_large",
    objective: Objective = "mse",
    rescale_vb: bool = False,
) -> LossTerms:
    """Return the loss of a denoiser on clean data noised to the given steps.

    Args:
        x0: clean data, about [-1, 1].
        timestep: index into `schedule`, the same for both modalities of a sample.
        noise: standard normal, shaped as `x0`.
        variance: `"learned_range"` adds the variational bound, which then trains the variance alone
            (the mean inside it is detached).
        objective: `"variational"` minimises the bound alone, mean included.
        rescale_vb: multiply the bound by the number of steps, and by 1/1000 when it is added to the
            mean squared error.

    Raises:
        ValueError: the denoiser gives a variance and `variance` says it is fixed, or the reverse.

    Source:
        Ho et al. 2020, equation 14; Nichol and Dhariwal 2021, section 3.1 (hybrid objective).
    """
    xt = q_sample(x0, timestep, noise, schedule)
    prediction = predict(denoiser, xt, timestep, schedule)
    _check_variance(prediction, variance)
    if objective == "variational":
        scale = len(schedule) if rescale_vb else 1
        bound = variational_bound(prediction, x0, xt, timestep, schedule, prediction_type)
        return _summed({"vb": bound * scale})
    target = training_target(x0, noise, noise_level(schedule, timestep), prediction_type)
    parts = {
        "mse": prediction.mean_output.map(
            lambda output, wanted: _per_sample_mean((output - wanted) ** 2), target
        )
    }
    if variance == "learned_range":
        scale = len(schedule) / 1000 if rescale_vb else 1
        frozen = Prediction(prediction.mean_output.detach(), prediction.variance_output)
        parts["vb"] = variational_bound(frozen, x0, xt, timestep, schedule, prediction_type) * scale
    return _summed(parts)


def variational_bound(
    prediction: Prediction,
    x0: AV,
    xt: AV,
    timestep: Int[Tensor, " batch"],
    schedule: Schedule,
    prediction_type: PredictionType,
) -> AV:
    """Return one term of the variational bound for each sample and modality, in bits per element.

    KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)); at timestep 0 the negative log-likelihood of data
    on 256 levels in [-1, 1].

    Returns:
        Each modality a vector over the batch.

    Source:
        Ho et al. 2020, equations 5 and 13.
    """
    level = noise_level(schedule, timestep)
    estimate = to_x0(prediction.mean_output, xt, level, prediction_type)
    mean = posterior_mean(estimate, xt, timestep, schedule)
    log_variance = model_log_variance(prediction.variance_output, xt, timestep, schedule)
    true_mean = posterior_mean(x0, xt, timestep, schedule)
    true_log_variance = schedule.posterior_log_variance_clipped.to(timestep.device)[timestep]

    def bits(
        clean: Tensor, mean: Tensor, log_variance: Tensor, true_mean: Tensor
    ) -> Float[Tensor, " batch"]:
        true = per_sample(true_log_variance, mean)
        divergence = gaussian_kl(true_mean, true, mean, log_variance)
        likelihood = discretized_gaussian_log_likelihood(clean, mean, 0.5 * log_variance)
        nats = torch.where(
            timestep == 0, -_per_sample_mean(likelihood), _per_sample_mean(divergence)
        )
        return nats / math.log(2.0)

    return x0.map(bits, mean, log_variance, true_mean)


def gaussian_kl(
    mean1: Float[Tensor, "*#shape"],
    log_variance1: Float[Tensor, "*#shape"],
    mean2: Float[Tensor, "*#shape"],
    log_variance2: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*shape"]:
    """Return KL(N1 || N2) of diagonal Gaussians, element by element, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1.0
        + (log_variance1 - log_variance2).exp()
        + (mean1 - mean2) ** 2 * (-log_variance2).exp()
    )


def discretized_gaussian_log_likelihood(
    x0: Float[Tensor, "*shape"],
    mean: Float[Tensor, "*shape"],
    log_scale: Float[Tensor, "*shape"],
) -> Float[Tensor, "*shape"]:
    """Return the log-probability in nats of the 1/255-wide bins around 256 levels in [-1, 1].

    The outermost bins reach to infinity. The normal distribution function is approximated by a
    tanh, as in the models this reproduces.

    Source:
        Ho et al. 2020, equation 13.
    """
    centred = x0 - mean
    inverse_scale = (-log_scale).exp()
    below_upper = _normal_cdf(inverse_scale * (centred + 1.0 / 255.0))
    below_lower = _normal_cdf(inverse_scale * (centred - 1.0 / 255.0))
    floor = 1e-12  # keeps the logarithm finite where a bin has no mass in float32
    return torch.where(
        x0 < -0.999,
        below_upper.clamp(min=floor).log(),
        torch.where(
            x0 > 0.999,
            (1.0 - below_lower).clamp(min=floor).log(),
            (below_upper - below_lower).clamp(min=floor).log(),
        ),
    )


def _summed(parts: Mapping[str, AV]) -> LossTerms:
    terms = {
        f"{name}_{modality}": pair[modality]
        for name, pair in parts.items()
        for modality in pair.present
    }
    return LossTerms(torch.stack(list(terms.values())).sum(dim=0), terms)


def _per_sample_mean(x: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    return x.flatten(start_dim=1).mean(dim=1)


def _normal_cdf(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _check_variance(prediction: Prediction, variance: VarianceType) -> None:
    if (prediction.variance_output is not None) != (variance == "learned_range"):
        raise ValueError(
            f"variance={variance!r}, but the denoiser gave "
            f"{'a' if prediction.variance_output is not None else 'no'} variance output"
        )
