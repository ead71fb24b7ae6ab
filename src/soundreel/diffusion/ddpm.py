"""Ancestral sampling (Ho et al. 2020, algorithm 2), step by step over a shortened schedule."""

import torch

from soundreel.diffusion.denoiser import Callback, Denoiser, Guide, estimate_x0
from soundreel.diffusion.noise import NoiseSource
from soundreel.diffusion.process import (
    PredictionType,
    model_log_variance,
    noise_level,
    posterior_mean,
)
from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV


@torch.no_grad()
def ddpm(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    noise: NoiseSource,
    prediction_type: PredictionType = "epsilon",
    clip_x0: bool = True,
    guide: Guide | None = None,
    callback: Callback | None = None,
) -> AV:
    """Sample by drawing from p(x_{t-1} | x_t) once for every step of the schedule.

    The variance is the learned one if the network predicts it, else the schedule's fixed large one.

    Args:
        xt: standard normal noise, the start.
        noise: called once a step, except for the last.
        clip_x0: limit each clean estimate to [-1, 1].

    Returns:
        The sample, of the shapes of `xt`.
    """
    for index in reversed(range(len(schedule))):
        step_noise = noise(xt) if index else None
        xt = ddpm_step(
            denoiser,
            xt,
            index,
            schedule,
            step_noise=step_noise,
            prediction_type=prediction_type,
            clip_x0=clip_x0,
            guide=guide,
        )
        if callback is not None:
            callback(len(schedule) - index, len(schedule), xt)
    return xt


def ddpm_step(
    denoiser: Denoiser,
    xt: AV,
    index: int,
    schedule: Schedule,
    *,
    step_noise: AV | None,
    prediction_type: PredictionType,
    clip_x0: bool,
    guide: Guide | None = None,
) -> AV:
    """Draw once from p(x_{t-1} | x_t); without `step_noise` its mean.

    Args:
        index: step of the (shortened) schedule.
    """
    timestep = torch.full((xt.batch_size,), index, device=xt.device)
    estimate = estimate_x0(
        denoiser,
        xt,
        schedule.timestep_map.to(xt.device)[timestep],
        noise_level(schedule, timestep),
        prediction_type,
        guide,
    )
    x0 = clip(estimate.mean_output) if clip_x0 else estimate.mean_output
    mean = posterior_mean(x0, xt, timestep, schedule)
    if step_noise is None:
        return mean
    log_variance = model_log_variance(estimate.variance_output, xt, timestep, schedule)
    return mean.map(
        lambda centre, log_var, eps: centre + (0.5 * log_var).exp() * eps, log_variance, step_noise
    )


def clip(x0: AV) -> AV:
    """Limit both modalities to [-1, 1]."""
    return x0.map(lambda x: x.clamp(-1, 1))
