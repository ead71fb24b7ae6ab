"""DPM-Solver and DPM-Solver++ with a given number of steps; `dpm_adaptive` chooses its own."""

from collections.abc import Callable

import torch

from soundreel.diffusion.denoiser import Callback, Denoiser, Guide
from soundreel.diffusion.dpm_update import Evaluation, Solver, Time
from soundreel.diffusion.schedules import Schedule
from soundreel.diffusion.vp_time import Spacing, VPTime
from soundreel.types import AV

Corrector = Callable[[Solver, AV, list[AV], list[Time], AV, Time], AV]
"""`correct(solver, xt, answers, times, answer, end)`: the step from `times[0]` to `end` once more,
with the answers at `times`, latest first, and the one at its end."""


@torch.no_grad()
def dpm_solver_singlestep(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    num_steps: int = 20,
    order: int = 3,
    spacing: Spacing = "log_snr",
    evaluation: Evaluation | None = None,
    guide: Guide | None = None,
    callback: Callback | None = None,
) -> AV:
    """Sample with single-step DPM-Solver; the defaults are MM-Diffusion's published setting.

    Steps of the given order are taken as far as `num_steps` goes, then lower ones: 20 evaluations
    at order 3 are six steps of order 3 and one of order 2.

    Args:
        xt: standard normal noise, the start.
        num_steps: evaluations of the network.
        order: 1, 2 or 3.
        spacing: what is evenly spaced on the grid of steps.

    Returns:
        The sample at the noise level of the first training step (sigma 0.01 for the linear
        schedule), of the shapes of `xt`.

    Deviation:
        MM-Diffusion's own solver applies the first-order update of the epsilon form to audio with
        the formula of the x0 form; here both modalities get the right one.
    """
    orders = singlestep_orders(num_steps, order)
    time, solver = _begin(denoiser, xt, schedule, evaluation or Evaluation(), guide)
    nodes = torch.tensor([0, *orders], device=xt.device).cumsum(0)
    grid = time.grid(spacing, num_steps, time.last, time.first)[nodes].tolist()
    for step, step_order in enumerate(orders):
        inner = time.grid(spacing, step_order, grid[step], grid[step + 1]).tolist()
        xt = _singlestep(solver, xt, [time.at(t, xt.batch_size) for t in inner])
        if callback is not None:
            callback(step + 1, len(orders), xt)
    return xt


@torch.no_grad()
def dpm_solver_multistep(
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
    correct: Corrector | None = None,
) -> AV:
    """Sample with multistep DPM-Solver: one evaluation a step, reusing those of earlier steps.

    Args:
        xt: standard normal noise, the start.
        num_steps: steps, each one evaluation of the network.
        order: 1, 2 or 3.
        spacing: what is evenly spaced on the grid of steps.
        correct: takes every step but the last again once the answer at its end is known, see
            `unipc`.

    Returns:
        The sample at the noise level of the first training step, of the shapes of `xt`.
    """
    _check_order(num_steps, order)
    time, solver = _begin(denoiser, xt, schedule, evaluation or Evaluation(), guide)
    grid = time.grid(spacing, num_steps, time.last, time.first).tolist()
    grid = [time.at(t, xt.batch_size) for t in grid]
    before, answers, times = xt, list[AV](), list[Time]()
    for step in range(num_steps):
        answer = solver.evaluate(xt, grid[step])
        if correct is not None and answers:
            xt = correct(solver, before, answers, times, answer, grid[step])
        answers = [answer, *answers][:order]
        times = [grid[step - back] for back in range(len(answers))]
        before, xt = xt, _multistep(solver, xt, answers, times, grid[step + 1])
        if callback is not None:
            callback(step + 1, num_steps, xt)
    return xt


def singlestep_orders(num_steps: int, order: int) -> list[int]:
    """Return orders of the single steps that use exactly `num_steps` evaluations.

    Source:
        Lu et al. 2022a, section 3.4 (DPM-Solver-fast).
    """
    _check_order(num_steps, order)
    if order < 3:
        return [order] * (num_steps // order) + [1] * (num_steps % order)
    full, rest = divmod(num_steps, 3)
    if rest == 0:
        return [3] * (full - 1) + [2, 1]
    return [3] * full + [rest]


def _singlestep(solver: Solver, xt: AV, times: list[Time]) -> AV:
    """Take one step over the times [start, ..., end], whose number is the order plus 1."""
    start, *between, end = times
    m = solver.evaluate(xt, start)
    if not between:
        return solver.first_order(xt, start, end, m)
    shares = [solver.share(start, t, end) for t in between]
    on_the_way, first = solver.part_way(xt, start, end, m, shares[0])
    m1 = solver.evaluate(on_the_way, first)
    if len(between) == 1:
        return solver.second_order(xt, start, end, m, m1, shares[0])
    return solver.third_order(xt, start, end, [m, m1], shares)


def _multistep(solver: Solver, xt: AV, answers: list[AV], times: list[Time], end: Time) -> AV:
    """Take one step from `times[0]` to `end` with the last answers and their times, latest first;
    the order is their number."""
    start = times[0]
    if len(answers) == 1:
        return solver.first_order(xt, start, end, answers[0])
    shares = [solver.share(start, t, end) for t in times]
    if len(answers) == 2:
        return solver.second_order(xt, start, end, answers[0], answers[1], shares[1])
    return solver.polynomial(xt, start, end, answers, shares)


def _begin(
    denoiser: Denoiser, xt: AV, schedule: Schedule, evaluation: Evaluation, guide: Guide | None
) -> tuple[VPTime, Solver]:
    """Return time and updates of one run."""
    time = VPTime(schedule, xt.device, official=evaluation.official_times)
    return time, Solver(denoiser, time, evaluation, guide)


def _check_order(num_steps: int, order: int) -> None:
    """Raise `ValueError` for an order that there is not, or that takes more steps."""
    if order not in (1, 2, 3):
        raise ValueError(f"order is 1, 2 or 3, got {order}")
    if num_steps < order:
        raise ValueError(f"order {order} needs at least {order} steps, got {num_steps}")
