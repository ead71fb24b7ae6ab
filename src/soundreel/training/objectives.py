"""What a training step minimises: functions of a network, a batch and that batch's own noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from soundreel.diffusion.losses import quarter_means
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.types import AV


@runtime_checkable
class TrainingBatch(Protocol):
    """What an objective may read of a batch."""

    @property
    def av(self) -> AV: ...

    @property
    def label(self) -> Int[Tensor, " batch"]: ...

    @property
    def sample_index(self) -> int: ...


Mean = tuple[float | Float[Tensor, ""], int | Float[Tensor, ""]]


@dataclass(frozen=True, slots=True)
class TrainingLoss:
    """Result of an objective.

    Args:
        loss: mean over the batch, to be minimised.
        means: numbers for the log by name, each with the count of samples behind it; tensors stay
            on the device until the step is over.
    """

    loss: Float[Tensor, ""]
    means: Mapping[str, Mean]


Objective = Callable[[nn.Module, TrainingBatch, PerSampleNoise], TrainingLoss]


def draw_timesteps(noise: PerSampleNoise, num_timesteps: int) -> Int[Tensor, " batch"]:
    """One uniform step per sample, each from the sample's own generator."""
    return torch.stack([torch.randint(num_timesteps, (), generator=g) for g in noise.generators])


def log_means(
    terms: Mapping[str, Float[Tensor, " batch"]],
    timestep: Int[Tensor, " batch"],
    num_timesteps: int,
) -> dict[str, tuple[float, int]]:
    """Mean of each term over the batch and over each quarter of the chain, with counts."""
    whole = {name: (float(v.detach().float().mean()), len(v)) for name, v in terms.items()}
    return whole | quarter_means(terms, timestep, num_timesteps)
