"""The training objective of MM-Diffusion."""

from typing import Any

from torch import Tensor, nn

from soundreel.device import send
from soundreel.diffusion.losses import VarianceType, diffusion_loss
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import PredictionType
from soundreel.diffusion.schedules import Schedule
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet
from soundreel.training.objectives import (
    StepObjective,
    TrainingBatch,
    TrainingLoss,
    draw_timesteps,
    log_means,
)
from soundreel.training.parallel import unwrapped
from soundreel.training.step import Step
from soundreel.types import AV


def mm_diffusion_objective(
    schedule: Schedule,
    *,
    prediction_type: PredictionType = "epsilon",
    variance: VarianceType = "fixed_large",
) -> StepObjective:
    """Return MM-Diffusion's loss: both modalities at one step, their errors weighted alike.

    The step and the noise of a sample come from its own generator, the window shifts of all samples
    of an optimizer step from the generator of its first.

    Source:
        Ruan et al. 2023, section 3.1, equation 6.
    """
    shared: dict[str, Any] = {}

    def draw_shifts(network: nn.Module, noise: PerSampleNoise) -> list[int]:
        unet = unwrapped(network)
        assert isinstance(unet, CoupledUNet), "this objective trains a CoupledUNet"
        return unet.draw_window_shifts(noise.generators[0])

    def prepare(network: nn.Module, step: Step) -> None:
        noise = step.sample_noise([step.first_sample])
        draw_timesteps(noise, len(schedule))  # which come before the shifts
        shared.update(first=step.first_sample, shifts=draw_shifts(network, noise))

    def objective(network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise) -> TrainingLoss:
        timestep = send(draw_timesteps(noise, len(schedule)), batch.av.device)
        if shared.get("first", batch.sample_index) == batch.sample_index:
            shifts = draw_shifts(network, noise)
        else:
            shifts = shared["shifts"]

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

    return StepObjective(prepare, objective)
