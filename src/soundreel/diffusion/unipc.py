"""UniPC: a multistep solver that corrects every step with the evaluation that follows it.

A step is predicted as by multistep DPM-Solver++. The network's answer at its end, which the next
step needs anyway, then gives the step once more with one order more. So an evaluation a step is
enough.

Source: Zhao et al. 2023 (arXiv 2302.04867), algorithms 1 to 3, with B(h) = e^h - 1 ("bh2").
"""

from typing import Any

import torch

from soundreel.diffusion.denoiser import Denoiser
from soundreel.diffusion.dpm_solver import dpm_solver_multistep
from soundreel.diffusion.dpm_update import Evaluation, Solver, Time
from soundreel.diffusion.schedules import Schedule
from soundreel.types import AV


def unipc(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    evaluation: Evaluation | None = None,
    **how: Any,
) -> AV:
    """Sample with UniPC.

    Args:
        xt: standard normal noise, the start.
        how: as for `dpm_solver_multistep`; `order` is the predictor's, the corrector's is one more.

    Returns:
        The sample at the noise level of the first training step, of the shapes of `xt`. Its last
        step is not corrected, which would take one more evaluation.
    """
    evaluation = evaluation or Evaluation(form="x0")
    return dpm_solver_multistep(
        denoiser, xt, schedule, evaluation=evaluation, correct=_corrected, **how
    )


def _corrected(
    solver: Solver, xt: AV, answers: list[AV], times: list[Time], answer: AV, end: Time
) -> AV:
    """Take the step from `times[0]` to `end` again, now that the network's answer there is known.

    With a single earlier answer the weight is 1/2, as published, not that of the straight line.
    """
    if len(answers) == 1:
        return solver.second_order(xt, times[0], end, answers[0], answer, torch.ones_like(end))
    shares = [solver.share(times[0], t, end) for t in (*times, end)]
    return solver.polynomial(xt, times[0], end, [*answers, answer], shares)
