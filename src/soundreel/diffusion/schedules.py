"""Discrete noise schedules and their shortening to fewer steps.

A `Schedule` is the chain q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I) of Ho et al.
2020, section 2, with every table that the forward process, the losses and the samplers look up. All
tables are float64, on the CPU unless moved; `process.extract` casts what it looked up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from soundreel.errors import SoundreelError


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """The kept steps of a diffusion chain, in order of growing noise.

    Args:
        betas: variance added at each kept step, in (0, 1).
        timestep_map: for each kept step the index in the original chain, which is what a network is
            given.
        num_train_timesteps: length of the original chain.
        alpha_bar_start: share of signal variance before the first kept step; 1 unless the last
            sampling step is meant to leave some noise.
    """

    betas: Float64[Tensor, " step"]
    timestep_map: Int64[Tensor, " step"]
    num_train_timesteps: int
    alpha_bar_start: float = 1.0

    def __post_init__(self) -> None:
        if len(self.betas) == 0 or not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise SoundreelError(
                f"betas must be one or more numbers between 0 and 1, got {len(self.betas)} "
                f"in [{min(self.betas.tolist(), default=None)}, "
                f"{max(self.betas.tolist(), default=None)}]; use more steps or smaller betas"
            )

    def __len__(self) -> int:
        return len(self.betas)

    def to(self, device: torch.device) -> "Schedule":
        """Return the schedule with its tables on a device, where training looks numbers up."""
        return replace(self, betas=self.betas.to(device), timestep_map=self.timestep_map.to(device))

    @cached_property
    def alpha_bar(self) -> Float64[Tensor, " step"]:
        """Return the cumulative product of 1 - beta: the share of signal variance left."""
        return self.alpha_bar_start * torch.cumprod(1.0 - self.betas, dim=0)

    @cached_property
    def alpha_bar_prev(self) -> Float64[Tensor, " step"]:
        """Return `alpha_bar` one kept step earlier; `alpha_bar_start` before the first."""
        return torch.cat([self.alpha_bar.new_tensor([self.alpha_bar_start]), self.alpha_bar[:-1]])

    @cached_property
    def sqrt_alpha_bar(self) -> Float64[Tensor, " step"]:
        return self.alpha_bar.sqrt()

    @cached_property
    def sqrt_one_minus_alpha_bar(self) -> Float64[Tensor, " step"]:
        return (1.0 - self.alpha_bar).sqrt()

    @cached_property
    def posterior_variance(self) -> Float64[Tensor, " step"]:
        """Return the variance of q(x_{t-1} | x_t, x_0); 0 at first (Ho et al. 2020, equation 7)."""
        return self.betas * (1.0 - self.alpha_bar_prev) / (1.0 - self.alpha_bar)

    @cached_property
    def posterior_log_variance_clipped(self) -> Float64[Tensor, " step"]:
        """Return the logarithm of `posterior_variance`, with the value at 0 replaced by that at 1.

        A chain of one step has no value at 1; its only beta takes the place.
        """
        first = self.posterior_variance[1:2] if len(self) > 1 else self.betas[:1]
        return torch.cat([first, self.posterior_variance[1:]]).log()

    @cached_property
    def posterior_mean_coef1(self) -> Float64[Tensor, " step"]:
        """Weight of x_0 in the mean of q(x_{t-1} | x_t, x_0)."""
        return self.betas * self.alpha_bar_prev.sqrt() / (1.0 - self.alpha_bar)

    @cached_property
    def posterior_mean_coef2(self) -> Float64[Tensor, " step"]:
        """Weight of x_t in the mean of q(x_{t-1} | x_t, x_0)."""
        return (1.0 - self.alpha_bar_prev) * (1.0 - self.betas).sqrt() / (1.0 - self.alpha_bar)

    @cached_property
    def fixed_large_variance(self) -> Float64[Tensor, " step"]:
        """Return the betas, with entry 0 replaced by the posterior variance at 1.

        It is the sampling variance of models that do not learn theirs.
        """
        return torch.cat([self.posterior_log_variance_clipped[:1].exp(), self.betas[1:]])


def linear_schedule(num_train_timesteps: int = 1000) -> Schedule:
    """Return betas from 1e-4 to 0.02, scaled by 1000 / `num_train_timesteps`.

    Raises:
        SoundreelError: with 20 steps or fewer the scaled betas reach 1.

    Source:
        Ho et al. 2020, section 4; both stages of MM-Diffusion.
    """
    scale = 1000 / _checked_count(num_train_timesteps)
    return _from_betas(
        torch.from_numpy(np.linspace(scale * 1e-4, scale * 0.02, num_train_timesteps))
    )


def scaled_linear_schedule(
    num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> Schedule:
    """Return betas whose square roots are evenly spaced from `beta_start` to `beta_end`.

    Source:
        Rombach et al. 2022 (latent diffusion); both diffusion models of MM-LDM.
    """
    count = _checked_count(num_train_timesteps)
    roots = np.linspace(beta_start**0.5, beta_end**0.5, count)
    return _from_betas(torch.from_numpy(roots**2))


def cosine_schedule(num_train_timesteps: int = 1000) -> Schedule:
    """Return betas of alpha_bar(u) = cos^2(pi/2 (u + 0.008) / 1.008), capped at 0.999.

    Source:
        Nichol and Dhariwal 2021, equation 17.
    """
    count = _checked_count(num_train_timesteps)
    u = torch.arange(count + 1, dtype=torch.float64) / count
    alpha_bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
    return _from_betas((1.0 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear_schedule,
    "scaled-linear": scaled_linear_schedule,
    "cosine": cosine_schedule,
}


def respace(schedule: Schedule, spacing: int | str) -> Schedule:
    """Keep only some steps of a chain, so that the kept steps have the same marginals as before.

    Args:
        spacing: how many steps to keep and where; see `space_timesteps`.

    Source:
        Nichol and Dhariwal 2021, section 4: beta_i = 1 - alpha_bar_i / alpha_bar_{i-1} over the
        kept steps.
    """
    kept = torch.tensor(space_timesteps(len(schedule), spacing), dtype=torch.int64)
    alpha_bar = schedule.alpha_bar[kept]
    start = schedule.alpha_bar_start
    if str(spacing).startswith("compvis"):
        start = float(schedule.alpha_bar[0])
    before = torch.cat([alpha_bar.new_tensor([start]), alpha_bar[:-1]])
    return Schedule(
        betas=1.0 - alpha_bar / before,
        timestep_map=schedule.timestep_map[kept],
        num_train_timesteps=schedule.num_train_timesteps,
        alpha_bar_start=start,
    )


def space_timesteps(num_timesteps: int, spacing: int | str) -> list[int]:
    """Return the indices of the steps to keep, ascending.

    Args:
        spacing: one of
            `"ddimN"`: every i-th step from 0 on, for the smallest integer stride i that gives
            exactly N steps;
            `"compvisN"`: every (`num_timesteps` // N)-th step from 1 on; N of them, or more if N
            does not divide `num_timesteps`. `respace` then lets the chain end at the noise level of
            step 0 instead of at none, as the latent diffusion code and MM-LDM do;
            `"a,b,c"`: the chain is cut into as many equal sections as there are numbers, and each
            gets that many steps, evenly spaced from its first to its last one;
            an integer, or its digits: one section.

    Raises:
        SoundreelError: no integer stride gives N steps, or a section has fewer than asked for.

    Source:
        Song et al. 2021 (DDIM) for the first form, Nichol and Dhariwal 2021 for the second.
    """
    text = str(spacing)
    if text.startswith("ddim"):
        return _integer_stride(num_timesteps, _positive_count(text.removeprefix("ddim"), text))
    if text.startswith("compvis"):
        return _offset_stride(num_timesteps, _positive_count(text.removeprefix("compvis"), text))
    return _fractional_strides(num_timesteps, [_positive_count(c, text) for c in text.split(",")])


def _integer_stride(num_timesteps: int, count: int) -> list[int]:
    for stride in range(1, max(num_timesteps, 2)):
        steps = range(0, num_timesteps, stride)
        if len(steps) == count:
            return list(steps)
    raise SoundreelError(
        f"no integer stride cuts {num_timesteps} timesteps to {count}; "
        f"drop 'ddim' from the spacing to use fractional strides"
    )


def _offset_stride(num_timesteps: int, count: int) -> list[int]:
    if 2 * count > num_timesteps:
        raise SoundreelError(
            f"'compvis{count}' keeps at most half of {num_timesteps} timesteps; ask for "
            f"{num_timesteps // 2} or fewer"
        )
    # The published code would go one step beyond the chain where a stride ends exactly at its end.
    return list(range(1, num_timesteps, num_timesteps // count))


def _fractional_strides(num_timesteps: int, counts: Sequence[int]) -> list[int]:
    shortest, longer_sections = divmod(num_timesteps, len(counts))
    kept: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        size = shortest + (section < longer_sections)
        if size < count:
            raise SoundreelError(
                f"cannot keep {count} of the {size} timesteps in section {section + 1}"
            )
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        # The position is accumulated, not multiplied: that is how the published models were
        # sampled, and now and then the two round to different steps.
        position = 0.0
        for _ in range(count):
            kept.append(start + round(position))
            position += stride
        start += size
    return kept


def _positive_count(text: str, spacing: str) -> int:
    if not text.strip().isdecimal() or int(text) == 0:
        raise SoundreelError(
            f"spacing is a count, counts with commas, or 'ddim' or 'compvis' and a count, "
            f"got {spacing!r}"
        )
    return int(text)


def _checked_count(num_train_timesteps: int) -> int:
    if num_train_timesteps < 1:
        raise SoundreelError(f"num_train_timesteps must be 1 or more, got {num_train_timesteps}")
    return num_train_timesteps


def _from_betas(betas: Float64[Tensor, " step"]) -> Schedule:
    return Schedule(
        betas=betas, timestep_map=torch.arange(len(betas)), num_train_timesteps=len(betas)
    )
