"""What the losses and the samplers ask of a network."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a network says about a noisy pair.

    Args:
        mean_output: estimate of epsilon, x0 or v (the caller's `prediction_type` says which), of the
            shape of the noisy pair.
        variance_output: for models that learn their variance, where it lies between the posterior
            variance (-1) and beta (1), on a logarithmic scale; else None.
    """

    mean_output: AV
    variance_output: AV | None = None


Denoiser = Callable[[AV, Int[Tensor, " batch"]], AV | Prediction]
"""`denoiser(xt, timestep)`, with the timestep counted in the original chain. A plain `AV` is
understood as a `Prediction` without variance."""


def predict(
    denoiser: Denoiser, xt: AV, timestep: Int[Tensor, " batch"], schedule: Schedule
) -> Prediction:
    """Call a denoiser at steps of a (shortened) schedule."""
    original = schedule.timestep_map.to(timestep.device)[timestep]
    output = denoiser(xt, original)
    return output if isinstance(output, Prediction) else Prediction(output)
