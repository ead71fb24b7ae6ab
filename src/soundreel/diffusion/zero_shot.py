"""Sound for given pictures, and pictures for given sound, from a model that was trained on neither.

Let c be the given modality with clean signal y, u the one to generate, and n_c the noise that the
given modality starts from, fixed for the whole run. At every noise level the network is shown
x_c = alpha y + sigma n_c in place of whatever the sampler made of c. That alone is *replacement*.
*Gradient* guidance also moves u so that the network's own idea of c comes closer to y.

Two ways to do it:

* `replacement_guide`, `gradient_guide` and, where a part of both modalities is given,
  `partial_guide` act on the clean estimate, once for each evaluation of the network, and so work
  with every sampler (ancestral, DDIM, DPM-Solver). With x0(x) the network's clean estimate, the
  sampler goes on with

      x0_c = y,    x0_u = x0_u(x) - (weight / 2) alpha d/dx_u ||y - x0_c(x)||^2,

  which is the reconstruction guidance of Ho et al. 2022 (Video Diffusion Models, equation 8) and
  for weight 0 is replacement. Since the estimate of c is y, a deterministic sampler carries
  c along alpha y + sigma n_c by itself.
* `zero_shot_ddpm` is MM-Diffusion's own rule (Ruan et al. 2023, section 3.4, as in its code): an
  ancestral step on the pair, then u is moved down the gradient of the squared distance between the
  new x_c and y noised to the new level.

Weights multiply the sum of squares of one sample, so they depend neither on the batch size nor on
the precision. `official_weight` converts from the published scale.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from soundreel.diffusion.ddpm import ddpm_step
from soundreel.diffusion.denoiser import Callback, CleanEstimator, Denoiser, Guide, Prediction
from soundreel.diffusion.noise import NoiseSource
from soundreel.diffusion.process import (
    NoiseLevel,
    PredictionType,
    add_noise,
    noise_level,
    per_sample,
)
from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV

HALF_PRECISION_FACTOR = 2**20
"""Loss scale that MM-Diffusion, run in half precision, never divides out of its gradient."""


def official_weight(
    classifier_scale: float, *, batch_size: int, num_elements: int, half_precision: bool
) -> float:
    """Return the `weight` of `zero_shot_ddpm` that equals MM-Diffusion's `classifier_scale`.

    MM-Diffusion takes the mean of the squares over the batch and over the elements of the given
    modality, and in half precision multiplies by 2^20. Its scripts use scale 3 in half precision,
    with batches of 1 (audio given, 25,600 elements: weight 122.88) and 2 (video given, 196,608
    elements: weight 8).

    Args:
        num_elements: of the given modality in one sample.
    """
    factor = HALF_PRECISION_FACTOR if half_precision else 1
    return classifier_scale * factor / (batch_size * num_elements)


def replacement_guide(given: AV, noise: AV) -> Guide:
    """Return a guide that shows the network the given modality, noised, and fixes its estimate.

    Args:
        given: the clean signal of one modality, in [-1, 1]; the other is None.
        noise: the noise that the sampler starts from.
    """
    return gradient_guide(given, noise, weight=0.0)


def gradient_guide(given: AV, noise: AV, *, weight: float) -> Guide:
    """Return `replacement_guide` with reconstruction guidance of the other modality.

    Args: as for `partial_guide`, with one modality given whole and the other None.
    """
    _only_modality(given)
    known = noise.map(torch.zeros_like)
    for name in given.present:
        known = known.replace(name, torch.ones_like(noise[name]))
        other = _other(name)
        if other in noise.present:
            given = given.replace(other, torch.zeros_like(noise[other]))
    return partial_guide(given, known, noise, weight=weight)


def partial_guide(given: AV, known: AV, noise: AV, *, weight: float) -> Guide:
    """Return a guide for a signal of which any part is given: a modality, an overlap, or both.

    The network is shown the known part, noised, and the known part of its clean estimate is fixed;
    with a weight, the rest is moved so that the network's own idea of the known part comes closer
    to it. Each evaluation of the network is then followed by one backward pass through it; the
    denoiser must allow that (no `inference_mode` inside or around).

    Args:
        given: the clean signal, in [-1, 1]; what it holds where it is not known has no effect.
        known: 1 where the signal is given, 0 elsewhere, of the same shapes.
        noise: the noise that the sampler starts from.
        weight: of the squared reconstruction error, summed over one sample; 0 is replacement.
    """
    known = known.map(lambda mask: mask.bool())

    def shown(xt: AV, level: NoiseLevel) -> AV:
        return known.map(torch.where, add_noise(given, noise, level), xt)

    def guide(estimate: CleanEstimator, xt: AV, level: NoiseLevel) -> Prediction:
        if not weight:
            prediction = estimate(shown(xt, level))
            x0 = prediction.mean_output
        else:
            with torch.enable_grad():
                free = xt.map(lambda x: x.detach().requires_grad_())
                prediction = estimate(shown(free, level))
                wrong = (prediction.mean_output - given).map(_squares_where, known)
                gradients = torch.autograd.grad(
                    torch.stack(wrong.tensors).sum(), free.tensors, materialize_grads=True
                )
            moves = AV(*gradients).map(lambda g: 0.5 * weight * per_sample(level.alpha, g) * g)
            x0 = prediction.mean_output.detach() - moves
        variance = prediction.variance_output
        return Prediction(
            known.map(torch.where, given, x0), None if variance is None else variance.detach()
        )

    return guide


def _squares_where(error: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, error, 0.0).float().square().sum()


def zero_shot_ddpm(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    given: AV,
    noise: NoiseSource,
    weight: float = 0.0,
    prediction_type: PredictionType = "epsilon",
    clip_x0: bool = True,
    callback: Callback | None = None,
) -> AV:
    """Sample one modality given the other ancestrally, as MM-Diffusion does it.

    Args:
        xt: standard normal noise, the start of both modalities.
        given: the clean signal of one modality, in [-1, 1]; the other is None.
        noise: called once a step, except for the last, for noise of both modalities.
        weight: 0 for replacement; else of the gradient, see `official_weight`.

    Returns:
        Both modalities. The given one holds what the last step left of it: the network's estimate
        for replacement, the signal noised to the first step for gradient guidance.
    """
    name = _only_modality(given)
    start_noise = xt
    for index in reversed(range(len(schedule))):
        timestep = torch.full((xt.batch_size,), index, device=xt.device)
        level = noise_level(schedule, timestep)
        before = xt.replace(name, _noised(given, start_noise, level, name))
        step = partial(
            ddpm_step,
            denoiser,
            index=index,
            schedule=schedule,
            step_noise=noise(xt) if index else None,
            prediction_type=prediction_type,
            clip_x0=clip_x0,
        )
        if weight and index:
            target = _noised(given, start_noise, noise_level(schedule, timestep - 1), name)
            xt = _descend(step, before, target, name, weight, level)
        else:
            with torch.no_grad():
                xt = step(xt=before)
            if weight:
                xt = xt.replace(name, before[name])
        if callback is not None:
            callback(len(schedule) - index, len(schedule), xt)
    return xt


def _descend(
    step: Callable[..., AV], before: AV, target: Tensor, name: str, weight: float, level: NoiseLevel
) -> AV:
    """Take a step and move the generated modality down the gradient of the given one's error."""
    other = _other(name)
    with torch.enable_grad():
        generated = before[other].detach().requires_grad_()
        after = step(xt=before.replace(other, generated))
        error = (after[name] - target).float().square().sum()
        (gradient,) = torch.autograd.grad(error, generated)
    moved = after[other].detach() - weight * per_sample(level.alpha, gradient) * gradient
    return before.replace(other, moved)


def _noised(given: AV, noise: AV, level: NoiseLevel, name: str) -> Tensor:
    return add_noise(given, AV(None, None).replace(name, noise[name]), level)[name]


def _only_modality(given: AV) -> str:
    if len(given.present) != 1:
        raise ValueError(
            f"give exactly one modality and leave the other None, got {list(given.present)}"
        )
    return given.present[0]


def _other(name: str) -> str:
    return "audio" if name == "video" else "video"
