"""The interface of networks to losses and samplers, and the clean estimate from their output."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from soundreel.diffusion.process import NoiseLevel, PredictionType, to_x0
from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV


@dataclass(frozen=True, slots=True)
class Prediction:
    """Output of a network for a noisy pair.

    Args:
        mean_output: estimate of epsilon, x0 or v (the caller's `prediction_type` says which), of
            the shape of the noisy pair.
        variance_output: for models that learn their variance, where it lies between the posterior
            variance (-1) and beta (1), on a logarithmic scale; else None.
    """

    mean_output: AV
    variance_output: AV | None = None


Denoiser = Callable[[AV, Int[Tensor, " batch"]], AV | Prediction]
"""`denoiser(xt, timestep)`, with the timestep counted in the original chain. A plain `AV` is
understood as a `Prediction` without variance."""

CleanEstimator = Callable[[AV], Prediction]
"""Clean estimate of a noisy pair at a fixed noise level, as a `Prediction` of type x0."""

Guide = Callable[[CleanEstimator, AV, NoiseLevel], Prediction]
"""`guide(estimate, xt, level)`: replaces the clean estimate `estimate(xt)` by another one.

It is called once for every evaluation of the network, and may call `estimate` on a changed pair."""

Callback = Callable[[int, int | None, AV], None]
"""`callback(step, num_steps, xt)` after each step, counted from 1; `num_steps` is None when the
solver does not know it in advance. Raise in it to stop."""


def predict(
    denoiser: Denoiser, xt: AV, timestep: Int[Tensor, " batch"], schedule: Schedule
) -> Prediction:
    """Call a denoiser at steps of a (shortened) schedule."""
    return as_prediction(denoiser(xt, schedule.timestep_map.to(timestep.device)[timestep]))


def as_prediction(output: AV | Prediction) -> Prediction:
    return output if isinstance(output, Prediction) else Prediction(output)


def estimate_x0(
    denoiser: Denoiser,
    xt: AV,
    timestep: Int[Tensor, " batch"],
    level: NoiseLevel,
    prediction_type: PredictionType,
    guide: Guide | None = None,
) -> Prediction:
    """Clean estimate of `xt`, as a `Prediction` of type x0.

    Args:
        timestep: what the network is given, counted in the original chain.
        level: the noise level of `xt`.
    """

    def estimate(noisy: AV) -> Prediction:
        prediction = as_prediction(denoiser(noisy, timestep))
        x0 = to_x0(prediction.mean_output, noisy, level, prediction_type)
        return Prediction(x0, prediction.variance_output)

    return estimate(xt) if guide is None else guide(estimate, xt, level)
