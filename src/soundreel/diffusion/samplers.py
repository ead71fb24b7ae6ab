"""Samplers by name, with settings that need no thought.

The functions behind them (`ddpm`, `ddim`, `dpm_solver_singlestep`, `dpm_solver_multistep`,
`unipc`, `dpm_solver_adaptive`) have more options. `docs/samplers.md` compares them on data whose
exact denoiser is known.
"""

from collections.abc import Callable
from dataclasses import dataclass

from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.ddpm import ddpm
from soundreel.diffusion.denoiser import Callback, Denoiser, Guide
from soundreel.diffusion.dpm_adaptive import StepControl, dpm_solver_adaptive
from soundreel.diffusion.dpm_solver import dpm_solver_multistep, dpm_solver_singlestep
from soundreel.diffusion.dpm_update import Evaluation
from soundreel.diffusion.noise import NoiseSource
from soundreel.diffusion.process import PredictionType
from soundreel.diffusion.schedules import Schedule, respace
from soundreel.diffusion.unipc import unipc
from soundreel.errors import SoundreelError
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The arguments of `sample`."""

    denoiser: Denoiser
    xt: AV
    schedule: Schedule
    noise: NoiseSource
    num_steps: int
    prediction_type: PredictionType
    clip_x0: bool
    guide: Guide | None
    callback: Callback | None


def sample(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    noise: NoiseSource,
    sampler: str = "dpm-solver++",
    num_steps: int = 20,
    prediction_type: PredictionType = "epsilon",
    clip_x0: bool = True,
    guide: Guide | None = None,
    callback: Callback | None = None,
) -> AV:
    """Turn noise into a sample.

    Args:
        xt: standard normal noise, the start.
        schedule: the full one that the network was trained with.
        noise: for samplers that draw more (`"ddpm"`).
        sampler: one of `SAMPLERS`, which says what they are.
        num_steps: evaluations of the network for each sample.
        clip_x0: limit clean estimates to [-1, 1]; right for pixels and waveforms, not for latents.
        guide: replaces clean estimates, see `zero_shot`.

    Returns:
        The sample, of the shapes of `xt`.

    Raises:
        SoundreelError: no sampler has that name, or the number of steps is impossible.
    """
    if sampler not in SAMPLERS:
        raise SoundreelError(f"sampler is one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if num_steps < 1:
        raise SoundreelError(f"num_steps must be at least 1, got {num_steps}")
    return SAMPLERS[sampler](
        _Request(
            denoiser=denoiser,
            xt=xt,
            schedule=schedule,
            noise=noise,
            num_steps=num_steps,
            prediction_type=prediction_type,
            clip_x0=clip_x0,
            guide=guide,
            callback=callback,
        )
    )


def _ddpm(request: _Request) -> AV:
    return ddpm(
        request.denoiser,
        request.xt,
        respace(request.schedule, request.num_steps),
        noise=request.noise,
        prediction_type=request.prediction_type,
        clip_x0=request.clip_x0,
        guide=request.guide,
        callback=request.callback,
    )


def _ddim(request: _Request) -> AV:
    return ddim(
        request.denoiser,
        request.xt,
        respace(request.schedule, request.num_steps),
        prediction_type=request.prediction_type,
        clip_x0=request.clip_x0,
        guide=request.guide,
        callback=request.callback,
    )


def _singlestep(request: _Request, *, official: bool = False) -> AV:
    return dpm_solver_singlestep(
        request.denoiser,
        request.xt,
        request.schedule,
        num_steps=request.num_steps,
        order=min(3, request.num_steps),
        evaluation=Evaluation(prediction_type=request.prediction_type, official_times=official),
        guide=request.guide,
        callback=request.callback,
    )


def _multistep(request: _Request, solver: Callable[..., AV], order: int) -> AV:
    return solver(
        request.denoiser,
        request.xt,
        request.schedule,
        num_steps=request.num_steps,
        order=min(order, request.num_steps),
        evaluation=Evaluation(
            form="x0",
            thresholding="static" if request.clip_x0 else "none",
            prediction_type=request.prediction_type,
        ),
        guide=request.guide,
        callback=request.callback,
    )


def _adaptive(request: _Request, *, official: bool = False) -> AV:
    # The published tolerances leave up to a fifth of the spread out (docs/samplers.md).
    ours = StepControl(absolute_tolerance=0.0016, relative_tolerance=0.01)
    clipping = "dynamic" if official else "static"
    return dpm_solver_adaptive(
        request.denoiser,
        request.xt,
        request.schedule,
        control=StepControl(shared=True) if official else ours,
        evaluation=Evaluation(
            form="x0",
            thresholding=clipping if request.clip_x0 else "none",
            prediction_type=request.prediction_type,
            official_times=official,
        ),
        guide=request.guide,
        callback=request.callback,
    )


SAMPLERS: dict[str, Callable[[_Request], AV]] = {
    "dpm-solver++": lambda request: _multistep(request, dpm_solver_multistep, 2),
    "unipc": lambda request: _multistep(request, unipc, 2),
    "dpm-solver": _singlestep,
    "dpm-solver++-adaptive": _adaptive,
    "ddim": _ddim,
    "ddpm": _ddpm,
    "dpm-solver-official": lambda request: _singlestep(request, official=True),
    "dpm-solver++-official": lambda request: _adaptive(request, official=True),
}
"""Samplers by name:

* `"dpm-solver++"`: multistep, order 2, even steps in log-SNR, deterministic;
* `"unipc"`: UniPC, order 2, even steps in log-SNR, deterministic;
* `"dpm-solver"`: single-step, order 3, even steps in log-SNR, deterministic, no clipping;
* `"dpm-solver++-adaptive"`: order 2, each sample with its own steps; ignores `num_steps`;
* `"dpm-solver-official"`, `"dpm-solver++-official"`: the two settings of MM-Diffusion's sampling
  script, its rounding of steps included; the second is adaptive, with one step size for the whole
  batch and dynamic thresholding;
* `"ddim"`: deterministic, even timesteps;
* `"ddpm"`: ancestral, even timesteps.
"""
