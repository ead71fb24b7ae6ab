"""Objectives of training steps: functions of a network, a batch and that batch's own noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.training.step import Step
from soundreel.types import AV


@runtime_checkable
class TrainingBatch(Protocol):
    """An objective's view of a batch; its labels lie on the CPU."""

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
        means: numbers for the log by name, each with the count of samples behind it; the same names
            for every batch of a step. Tensors stay on the device until the step is over.
    """

    loss: Float[Tensor, ""]
    means: Mapping[str, Mean]


Objective = Callable[[nn.Module, TrainingBatch, PerSampleNoise], TrainingLoss]
"""`objective(network, batch, noise)`. The network may be wrapped for several processes: call it,
and read its attributes from `parallel.unwrapped(network)`. `float` or `bool` of a
tensor on the device makes the host wait for a GPU; none is needed."""


@dataclass(frozen=True)
class StepObjective:
    """An objective with terms that depend on all batches of a step, in all processes.

    Attributes:
        prepare: called with the network itself and the step before the first of its batches.
        loss: the objective of each batch.
    """

    prepare: Callable[[nn.Module, Step], None]
    loss: Objective

    def __call__(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        return self.loss(network, batch, noise)


def draw_timesteps(noise: PerSampleNoise, num_timesteps: int) -> Int[Tensor, " batch"]:
    """Draw one uniform step per sample, each from the sample's own generator, on the CPU."""
    return torch.stack([torch.randint(num_timesteps, (), generator=g) for g in noise.generators])


def log_means(
    terms: Mapping[str, Float[Tensor, " batch"]],
    timestep: Int[Tensor, " batch"],
    num_timesteps: int,
) -> dict[str, Mean]:
    """Return the mean of each term over the batch and over each quarter of the chain, with counts.

    `mse_video_q0` is the mean over the least noisy quarter; a quarter without samples counts none.

    Args:
        timestep: index into the schedule that the terms were computed with.
        num_timesteps: length of that schedule.
    """
    quarter = functional.one_hot((4 * timestep) // num_timesteps, 4).float()
    counts = quarter.sum(dim=0)
    means: dict[str, Mean] = {}
    for name, term in terms.items():
        values = term.detach().float()
        means[name] = (values.mean(), len(values))
        of_quarters = (values @ quarter) / counts.clamp(min=1.0)
        means |= {f"{name}_q{i}": (of_quarters[i], counts[i]) for i in range(4)}
    return means
