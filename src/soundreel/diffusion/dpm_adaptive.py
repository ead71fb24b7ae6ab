"""DPM-Solver with step sizes chosen by an error estimate."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.diffusion.denoiser import Callback, Denoiser, Guide
from soundreel.diffusion.dpm_update import Evaluation, Solver, Time
from soundreel.diffusion.process import per_sample
from soundreel.diffusion.schedules import Schedule
from soundreel.diffusion.vp_time import VPTime
from soundreel.errors import SoundreelError
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class StepControl:
    """Choice of steps; the numbers are those of the published solver.

    Args:
        absolute_tolerance: of one step, per element.
        relative_tolerance: of one step, as a share of the larger of two successive values.
        first_step: in lambda.
        safety: share of the step size that the error estimate would allow.
        shared: one step size for the whole batch, from its worst sample, as the published solver
            does; then a sample depends on its batch. Otherwise every sample has its own.
    """

    absolute_tolerance: float = 0.0078
    relative_tolerance: float = 0.05
    first_step: float = 0.05
    safety: float = 0.9
    shared: bool = False


@torch.no_grad()
def dpm_solver_adaptive(
    denoiser: Denoiser,
    xt: AV,
    schedule: Schedule,
    *,
    order: int = 2,
    control: StepControl | None = None,
    evaluation: Evaluation | None = None,
    guide: Guide | None = None,
    callback: Callback | None = None,
) -> AV:
    """Sample with steps as long as the difference between two orders allows.

    Every attempt costs `order` evaluations of the whole batch, or one less after a rejected one.

    Args:
        xt: standard normal noise, the start.
        order: 2 (checked against order 1) or 3 (against order 2).

    Returns:
        The sample at the noise level of the first training step, of the shapes of `xt`.

    Raises:
        SoundreelError: the network's answers are not finite, or so steep that no step is short
            enough.

    Source:
        Lu et al. 2022a, appendix C (DPM-Solver-12 and -23).
    """
    if order not in (2, 3):
        raise ValueError(f"the adaptive solver has order 2 or 3, got {order}")
    control = control or StepControl()
    evaluation = evaluation or Evaluation()
    time = VPTime(schedule, xt.device, official=evaluation.official_times)
    run = _Run(Solver(denoiser, time, evaluation, guide), control, order, xt)
    attempt = 0
    while run.active.any():
        run.attempt()
        attempt += 1
        if callback is not None:
            callback(attempt, None, run.xt)
    return run.xt


@dataclass
class _Run:
    """State of the samples of one batch, each at its own time."""

    solver: Solver
    control: StepControl
    order: int
    xt: AV
    now: Time = field(init=False)
    step: Time = field(init=False)
    active: Tensor = field(init=False)
    lower_before: AV = field(init=False)
    start_answer: AV | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.now = self.solver.time.at(self.solver.time.last, self.xt.batch_size)
        self.step = torch.full_like(self.now, self.control.first_step)
        self.active = torch.ones_like(self.now, dtype=torch.bool)
        self.lower_before = self.xt

    def attempt(self) -> None:
        """Try one step with every unfinished sample, keep it where the error allows."""
        time = self.solver.time
        position = time.half_log_snr(self.now)
        end = torch.where(self.active, time.time_of(position + self.step), self.now)
        lower, higher = self._both_orders(end)
        error = self._error(lower, higher)
        self._check_progress(end, error)
        accepted = self.active & (error <= 1)
        self.xt = _where(accepted, higher, self.xt)
        self.lower_before = _where(accepted, lower, self.lower_before)
        self.now = torch.where(accepted, end, self.now)
        if accepted.any():
            self.start_answer = None
        allowed = self.control.safety * self.step * error.clamp(min=1e-12) ** (-1 / self.order)
        left = time.half_log_snr(torch.full_like(self.now, time.first))
        left = left - time.half_log_snr(self.now)
        self.step = torch.minimum(allowed, left)
        self.active = (self.now - time.first).abs() > 1e-5

    def _check_progress(self, end: Time, error: Time) -> None:
        """Raise `SoundreelError` where further attempts would never end."""
        if not error[self.active].isfinite().all():
            raise SoundreelError(
                "the network's answers are not finite: its weights are damaged, or its precision "
                "is too low"
            )
        if (end >= self.now)[self.active].any():
            raise SoundreelError(
                "the step size has fallen to nothing: no step is short enough for the tolerance; "
                "choose a sampler with a given number of steps"
            )

    def _both_orders(self, end: Time) -> tuple[AV, AV]:
        solver, xt, now = self.solver, self.xt, self.now
        if self.start_answer is None:
            self.start_answer = solver.evaluate(xt, now)
        m = self.start_answer
        shares = [torch.full_like(now, k / self.order) for k in range(1, self.order)]
        on_the_way, first = solver.part_way(xt, now, end, m, shares[0])
        m1 = solver.evaluate(on_the_way, first)
        second = solver.second_order(xt, now, end, m, m1, shares[0])
        if self.order == 2:
            return solver.first_order(xt, now, end, m), second
        return second, solver.third_order(xt, now, end, [m, m1], shares)

    def _error(self, lower: AV, higher: AV) -> Float[Tensor, " batch"]:
        """Return root mean square of the difference in units of the tolerance, worst modality."""
        control = self.control

        def ratio(low: Tensor, high: Tensor, before: Tensor) -> Float[Tensor, " batch"]:
            scale = control.relative_tolerance * torch.maximum(low.abs(), before.abs())
            scale = scale.clamp(min=control.absolute_tolerance)
            return ((high - low) / scale).flatten(1).square().mean(dim=1).sqrt()

        per_modality = lower.map(ratio, higher, self.lower_before)
        error = torch.stack(per_modality.tensors).amax(dim=0).to(self.now)
        return error.amax().expand_as(error) if control.shared else error


def _where(condition: Tensor, chosen: AV, other: AV) -> AV:
    return chosen.map(lambda a, b: torch.where(per_sample(condition.float(), a) > 0, a, b), other)
