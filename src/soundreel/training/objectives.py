"""What a training step minimises: functions of a network, a batch and that batch's own noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from soundreel.diffusion.losses import VarianceType, diffusion_loss, quarter_means
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import PredictionType
from soundreel.diffusion.schedules import Schedule
from soundreel.models.mm_diffusion.coupled_unet import CoupledUNet
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


@dataclass(frozen=True, slots=True)
class TrainingLoss:
    """Result of an objective.

    Args:
        loss: mean over the batch, to be minimised.
        means: numbers for the log by name, each with the count of samples behind it.
    """

    loss: Float[Tensor, ""]
    means: Mapping[str, tuple[float, int]]


Objective = Callable[[nn.Module, TrainingBatch, PerSampleNoise], TrainingLoss]


def mm_diffusion_objective(
    schedule: Schedule,
    *,
    prediction_type: PredictionType = "epsilon",
    variance: VarianceType = "fixed_large",
) -> Objective:
    """MM-Diffusion's loss: both modalities at one step, their errors weighted alike.

    The step and the noise of a sample come from its own generator, the window shifts of the batch
    from the generator of its first sample.

    Source:
        Ruan et al. 2023, section 3.1, equation 6.
    """

    def objective(network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise) -> TrainingLoss:
        unet = cast(CoupledUNet, network)
        timestep = draw_timesteps(noise, len(schedule)).to(batch.av.device)
        shifts = unet.draw_window_shifts(noise.generators[0])

        def denoiser(xt: AV, original_timestep: Tensor) -> AV:
            return network(xt, original_timestep, shifts)

        terms = diffusion_loss(
            denoiser,
            batch.av,
            timestep,
            noise(batch.av),
            schedule,
            prediction_type=prediction_type,
            variance=variance,
        )
        return TrainingLoss(terms.loss.mean(), log_means(terms.terms, timestep, len(schedule)))

    return objective


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
