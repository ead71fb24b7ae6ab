"""The training objective of MM-Diffusion."""

from typing import cast

from torch import Tensor, nn

from soundreel.diffusion.losses import VarianceType, diffusion_loss
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import PredictionType
from soundreel.diffusion.schedules import Schedule
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet
from soundreel.training.objectives import (
    Objective,
    TrainingBatch,
    TrainingLoss,
    draw_timesteps,
    log_means,
)
from soundreel.types import AV


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
