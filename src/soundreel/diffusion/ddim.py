"""DDIM sampling (Song et al. 2021) over a shortened schedule."""

import torch

from soundreel.diffusion.ddpm import clip
from soundreel.diffusion.denoiser import Callback, Denoiser, Guide, estimate_x0
from soundreel.diffusion.noise import NoiseSource
from soundreel.diffusion.process import (
    NoiseLevel,
    PredictionType,
    add_noise,
    noise_level,
    to_epsilon,
)
from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    noise: NoiseSource | None = None,
    eta: float = 0.0,
    prediction_type: PredictionType = "epsilon",
    clip_x0: bool = True,
    guide: Guide | None = None,
    callback: Callback | None = None,
) -> AV:
    """Sample with one DDIM update for every step of the schedule.

    The noise estimate is derived anew from the clipped clean estimate; a learned variance is not
    used. The steps and the noise level at the end are the schedule's matter, see `respace`.

    Args:
        xt: standard normal noise, the start.
        noise: called once for every step that adds noise; may be None if `eta` is 0.
        eta: 0 is deterministic, 1 adds as much noise as ancestral sampling.
        clip_x0: limit each clean estimate to [-1, 1].

    Raises:
        ValueError: `eta` is not 0 and there is no source of noise.

    Source:
        Song et al. 2021, equations 12 and 16.
    """
    if eta and noise is None:
        raise ValueError(f"DDIM with eta={eta} adds noise; pass a noise source, or eta=0")
    sigma = _sigma(schedule, eta)
    for index in reversed(range(len(schedule))):
        timestep = torch.full((xt.batch_size,), index, device=xt.device)
        level = noise_level(schedule, timestep)
        network_step = schedule.timestep_map.to(xt.device)[timestep]
        estimate = estimate_x0(denoiser, xt, network_step, level, prediction_type, guide)
        x0 = clip(estimate.mean_output) if clip_x0 else estimate.mean_output
        epsilon = to_epsilon(x0, xt, level, "x0")
        added = float(sigma[index])
        alpha_bar_prev = schedule.alpha_bar_prev.to(xt.device)[timestep]
        direction = (1.0 - alpha_bar_prev - added**2).clamp(min=0.0).sqrt()
        xt = add_noise(x0, epsilon, NoiseLevel(alpha_bar_prev.sqrt(), direction))
        if added > 0 and noise is not None:
            xt = xt + noise(xt) * added
        if callback is not None:
            callback(len(schedule) - index, len(schedule), xt)
    return xt


def _sigma(schedule: Schedule, eta: float) -> torch.Tensor:
    before, here = schedule.alpha_bar_prev, schedule.alpha_bar
    return eta * ((1 - before) / (1 - here) * (1 - here / before)).sqrt()
