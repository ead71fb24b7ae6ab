"""The training objective of the super-resolution stage."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from soundreel.device import send
from soundreel.diffusion.losses import diffusion_loss
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import PredictionType
from soundreel.diffusion.schedules import Schedule
from soundreel.systems.super_resolution.network import super_resolution_denoiser, to_residual
from soundreel.training.objectives import TrainingBatch, TrainingLoss, draw_timesteps, log_means
from soundreel.types import AV


@runtime_checkable
class ImagePairBatch(TrainingBatch, Protocol):
    """The objective's view of a batch: large images in `av.video`, small ones in `low_res`."""

    @property
    def low_res(self) -> Float[Tensor, "batch channel low_height low_width"]: ...


class SuperResolutionObjective:
    """Mean squared error of the estimate plus, with learned variance, the variational bound.

    Args:
        prediction_type: what the network estimates; the noise as published.
        residual_scale: as in `SuperResolutionConfig`.
        rescale_vb: multiply the bound by 1/1000 of the chain's length, as guided diffusion's own
            training does; the published MM-Diffusion scripts add it as it is.

    Source:
        Nichol and Dhariwal 2021, section 3.1 (hybrid objective); Ruan et al. 2023, supplement.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        prediction_type: PredictionType = "epsilon",
        residual_scale: float = 0.0,
        learned_variance: bool = True,
        rescale_vb: bool = False,
    ) -> None:
        self._schedule = schedule
        self._prediction_type: PredictionType = prediction_type
        self._residual_scale = residual_scale
        self._learned_variance = learned_variance
        self._rescale_vb = rescale_vb

    def __call__(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        if not isinstance(batch, ImagePairBatch):
            raise TypeError(f"super-resolution learns from image pairs, got a {type(batch)}")
        timestep = draw_timesteps(noise, len(self._schedule))
        timestep = send(timestep, batch.av.device)
        low_res = send(batch.low_res, batch.av.device)
        x0 = AV(to_residual(batch.av["video"], low_res, self._residual_scale), None)
        terms = diffusion_loss(
            super_resolution_denoiser(network, low_res, learned_variance=self._learned_variance),
            x0,
            timestep,
            noise(x0),
            self._schedule,
            prediction_type=self._prediction_type,
            variance="learned_range" if self._learned_variance else "fixed_large",
            rescale_vb=self._rescale_vb,
        )
        means = log_means(terms.terms, timestep, len(self._schedule))
        return TrainingLoss(torch.mean(terms.loss), means)
