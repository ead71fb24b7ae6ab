"""Solvers of MM-LDM's two chains: the published one, and two that need fewer steps."""

from typing import Literal

from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.denoiser import Callback, Denoiser
from soundreel.diffusion.dpm_solver import dpm_solver_multistep
from soundreel.diffusion.dpm_update import Evaluation
from soundreel.diffusion.process import PredictionType
from soundreel.diffusion.schedules import Schedule, respace
from soundreel.diffusion.unipc import unipc
from soundreel.types import AV

LatentSampler = Literal["ddim", "dpm-solver++", "unipc"]
LATENT_SAMPLERS = ("ddim", "dpm-solver++", "unipc")
"""`"ddim"`: steps evenly spaced in time, as latent diffusion chooses them; `"dpm-solver++"`:
multistep of order 2, steps evenly spaced in log-SNR; `"unipc"`: the same with a corrector. All end
at the noise of the chain's first step."""


def solve(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    sampler: LatentSampler,
    num_steps: int,
    prediction_type: PredictionType,
    callback: Callback | None = None,
) -> AV:
    """Return latents made of the noise `xt`; clean estimates are not limited.

    Args:
        schedule: the training chain.
        num_steps: evaluations of the denoiser; DDIM takes a few more where they do not divide the
            chain, see `evaluations`.

    Source:
        Rombach et al. 2022 (choice of DDIM's steps); Lu et al. 2022b, algorithm 2;
        Zhao et al. 2023.
    """
    if sampler == "ddim":
        return ddim(
            denoiser,
            xt,
            respace(schedule, f"compvis{num_steps}"),
            prediction_type=prediction_type,
            clip_x0=False,
            callback=callback,
        )
    multistep = unipc if sampler == "unipc" else dpm_solver_multistep
    return multistep(
        denoiser,
        xt,
        schedule,
        num_steps=num_steps,
        order=min(2, num_steps),
        evaluation=Evaluation(form="x0", prediction_type=prediction_type),
        callback=callback,
    )


def evaluations(schedule: Schedule, sampler: LatentSampler, num_steps: int) -> int:
    """Return how often `solve` calls the denoiser."""
    return len(respace(schedule, f"compvis{num_steps}")) if sampler == "ddim" else num_steps
