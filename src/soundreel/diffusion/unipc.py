"""UniPC: a multistep solver that corrects every step with the evaluation that follows it.

A step is predicted as by multistep DPM-Solver++. The network's answer at its end, which the next
step needs anyway, then gives the step once more with one order more. So an evaluation a step is
enough.

Source: Zhao et al. 2023 (arXiv 2302.04867), algorithms 1 to 3, with B(h) = e^h - 1 ("bh2").
"""

import torch

from soundreel.diffusion.denoiser import Callback, Denoiser, Guide
from soundreel.diffusion.dpm_solver import begin, check_order, multistep
from soundreel.diffusion.dpm_update import Evaluation, Solver, Time
from soundreel.diffusion.schedules import Schedule
from soundreel.diffusion.vp_time import Spacing
from soundreel.types import AV


@torch.no_grad()
def unipc(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    num_steps: int = 20,
    order: int = 2,
    spacing: Spacing = "log_snr",
    evaluation: Evaluation | None = None,
    guide: Guide | None = None,
    callback: Callback | None = None,
) -> AV:
    """Sample with UniPC.

    Args:
        xt: standard normal noise, the start.
        num_steps: steps, each one evaluation of the network.
        order: of the predictor: 1, 2 or 3; the corrector's is one more.
        spacing: what is evenly spaced on the grid of steps.

    Returns:
        The sample at the noise level of the first training step, of the shapes of `xt`. Its last
        step is not corrected, which would take one more evaluation.
    """
    check_order(num_steps, order)
    evaluation = evaluation or Evaluation(form="x0")
    time, solver = begin(denoiser, xt, schedule, evaluation, guide)
    grid = time.grid(spacing, num_steps, time.last, time.first).tolist()
    grid = [time.at(t, xt.batch_size) for t in grid]
    before, answers = xt, list[AV]()
    for step in range(num_steps):
        answer = solver.evaluate(xt, grid[step])
        if answers:
            times = [grid[step - 1 - back] for back in range(len(answers))]
            xt = _corrected(solver, before, answers, times, answer, grid[step])
        answers = [answer, *answers][:order]
        times = [grid[step - back] for back in range(len(answers))]
        before, xt = xt, multistep(solver, xt, answers, times, grid[step + 1])
        if callback is not None:
            callback(step + 1, num_steps, xt)
    return xt


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
