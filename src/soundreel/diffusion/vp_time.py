"""A discrete schedule as a function of continuous time, for solvers that work between its steps.

Step k of a chain of N steps lies at time (k + 1) / N. Between steps log alpha is linear in time,
and sigma = sqrt(1 - alpha^2). The half log-SNR lambda = log(alpha / sigma) falls with time.

Source: Lu et al. 2022 (DPM-Solver), section 2 and appendix D.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from soundreel.diffusion.process import NoiseLevel
from soundreel.diffusion.schedules import Schedule

Spacing = Literal["log_snr", "uniform", "quadratic"]
"""The function of time that is evenly spaced on a grid: lambda, time, or its square root."""

Times = Float[Tensor, "*shape"]


class VPTime:
    """Times, log-SNRs and noise levels of one schedule.

    Args:
        device: where the values live.
        official: cut off the steps that the network is given, as MM-Diffusion's solver does,
            instead of rounding them. Because which step a time is cut to depends on the last bit,
            everything is float32 then, as there; otherwise float64.

    Raises:
        ValueError: the schedule was shortened; a solver chooses its own steps.
    """

    def __init__(self, schedule: Schedule, device: torch.device, *, official: bool = False) -> None:
        if len(schedule) != schedule.num_train_timesteps:
            raise ValueError(
                f"this solver chooses its own steps: pass the full schedule of "
                f"{schedule.num_train_timesteps} timesteps, not one shortened to {len(schedule)}"
            )
        self.official = official
        self.num_timesteps = len(schedule)
        self.first = 1.0 / self.num_timesteps
        self.last = 1.0
        dtype = torch.float32 if official else torch.float64
        self._knots = torch.linspace(0, 1, self.num_timesteps + 1, dtype=dtype, device=device)[1:]
        self._log_alpha = 0.5 * schedule.alpha_bar.to(device, dtype).log()

    def at(self, time: float, batch_size: int) -> Float[Tensor, " batch"]:
        """Return the same time for every sample."""
        return self._knots.new_full((batch_size,), time)

    def log_alpha(self, time: Times) -> Times:
        return _interpolate(time, self._knots, self._log_alpha)

    def level(self, time: Float[Tensor, " batch"]) -> NoiseLevel:
        log_alpha = self.log_alpha(time)
        return NoiseLevel(log_alpha.exp().double(), self._variance(log_alpha).sqrt().double())

    def half_log_snr(self, time: Times) -> Times:
        """Return lambda = log(alpha / sigma)."""
        log_alpha = self.log_alpha(time)
        return log_alpha - 0.5 * torch.log(self._variance(log_alpha))

    def time_of(self, half_log_snr: Times) -> Times:
        """Return the time at which lambda has the given value."""
        log_alpha = -0.5 * torch.logaddexp(torch.zeros_like(half_log_snr), -2 * half_log_snr)
        return _interpolate(log_alpha, self._log_alpha.flip(0), self._knots.flip(0))

    def grid(
        self, spacing: Spacing, num_intervals: int, start: float, end: float
    ) -> Float[Tensor, " point"]:
        """Return `num_intervals + 1` times from `start` to `end`."""
        ends = self._knots.new_tensor([start, end])
        if spacing == "log_snr":
            return self.time_of(self._even(self.half_log_snr(ends), num_intervals))
        if spacing == "quadratic":
            return self._even(ends.sqrt(), num_intervals) ** 2
        if spacing == "uniform":
            return self._even(ends, num_intervals)
        raise ValueError(f"spacing is 'log_snr', 'uniform' or 'quadratic', got {spacing!r}")

    def network_timestep(self, time: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Return the network's whole step (time - 1/N) N, rounded, or cut off if `official`."""
        step = (time - self.first) * self.num_timesteps
        step = step.clamp(0, self.num_timesteps - 1)
        return step.long() if self.official else step.round().long()

    def _variance(self, log_alpha: Times) -> Times:
        if self.official:
            return 1.0 - torch.exp(2.0 * log_alpha)
        return -torch.expm1(2.0 * log_alpha)

    def _even(self, ends: Float[Tensor, "2"], num_intervals: int) -> Float[Tensor, " point"]:
        start, end = ends.tolist()
        return torch.linspace(start, end, num_intervals + 1, dtype=ends.dtype, device=ends.device)


def _interpolate(x: Times, knots: Float[Tensor, " knot"], values: Float[Tensor, " knot"]) -> Times:
    """Interpolate linearly through (knots, values); the end pieces go on outside."""
    right = torch.searchsorted(knots, x.contiguous()).clamp(1, len(knots) - 1)
    left = right - 1
    rise, run = values[right] - values[left], knots[right] - knots[left]
    return values[left] + (x - knots[left]) * rise / run
