"""Rectified flow: straight paths from data to noise, each group of a clip at its own noise level.

x_t = (1 - t) x_0 + t noise, with t from 0 (clean) to 1 (noise); a network follows the velocity
dx_t / dt = noise - x_0. A level is one number for each modality and group, so that a clip may be
clean where it is given and noise where it is to be made.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.errors import SoundreelError
from soundreel.types import AV

Answer = Callable[[AV, AV, int], AV]
"""`answer(scaled, level, step)`: a network's answer to x_t at unit variance.

It is `batch group token dim`; steps are counted from 0.
"""


def per_group(level: Float[Tensor, "batch group"], like: Tensor) -> Tensor:
    """Return the levels with as many axes as `like`, to multiply it."""
    return level.to(like).reshape(*level.shape, *(1 for _ in like.shape[2:]))


def interpolate(x0: AV, noise: AV, level: AV) -> AV:
    """Return (1 - t) x_0 + t noise, group by group.

    Source:
        Liu, Gong and Liu 2023 (rectified flow), equation 1; t is counted from the data.
    """

    def between(clean: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        t = per_group(t, clean)
        return (1 - t) * clean + t * noisy

    return x0.map(between, noise, level)


@dataclass(frozen=True, slots=True)
class LinearVelocity:
    """The best linear estimate of the velocity, and how far it is off.

    The velocity of data of deviation s is `slope` x_t plus an error of deviation `error`;
    `input_scale` gives x_t unit variance.
    """

    slope: AV
    error: AV
    input_scale: AV


def linear_velocity(level: AV, deviation: AV) -> LinearVelocity:
    """Return the Wiener estimate for data with mean 0 and the given deviations, in closed form.

    With n = (1 - t)^2 s^2 + t^2, the variance of x_t: slope (t - (1 - t) s^2) / n, error
    s / sqrt(n), scale 1 / sqrt(n).

    Args:
        level: in [0, 1], `batch group` each; not 0 where a deviation is 0.
        deviation: `token dim`, or `batch 1 token dim`, each.
    """

    def variance(s: Tensor, t: Tensor) -> Tensor:
        t = t[:, :, None, None].to(s)
        return ((1 - t) * s).square() + t.square()

    def slope(s: Tensor, t: Tensor, n: Tensor) -> Tensor:
        t = t[:, :, None, None].to(s)
        return (t - (1 - t) * s.square()) / n

    spread = deviation.map(variance, level)
    scale = spread.map(Tensor.rsqrt)
    return LinearVelocity(deviation.map(slope, level, spread), scale * deviation, scale)


def remainder(velocity: AV, xt: AV, linear: LinearVelocity) -> AV:
    """Return what a network is to answer: the linear estimate's error, at unit variance."""
    return (velocity - linear.slope * xt) / linear.error


def correlated_noise(white: AV, correlation: AV, previous: AV | None = None) -> AV:
    """Return standard normal noise whose neighbouring groups are correlated.

    e_g = r e_(g-1) + sqrt(1 - r^2) n_g, with r for each number of a group. Slow parts of a clip,
    such as its brightness, then start from noise that is as slow.

    Args:
        white: standard normal, `batch group token dim` each.
        correlation: in [0, 1), `token dim` each.
        previous: the group before, `batch token dim` each; None begins a new clip.

    Source:
        Ge et al. 2023 (PYoCo), section 3.2, the progressive noise model.
    """

    def colour(draws: Tensor, r: Tensor, before: Tensor | None) -> Tensor:
        r = r.to(draws)
        fresh = (1 - r.square()).sqrt()
        groups = []
        # A recursion, so that a stream made piece by piece equals the whole bit for bit.
        for draw in draws.unbind(dim=1):
            before = draw if before is None else r * before + fresh * draw
            groups.append(before)
        return torch.stack(groups, dim=1)

    return white.map(colour, correlation, previous)


def logit_normal(
    normal: Float[Tensor, "*shape"],
    uniform: Float[Tensor, "*shape"],
    chance: Float[Tensor, "*shape"],
    *,
    mean: float,
    deviation: float,
    uniform_share: float = 0.0,
) -> Float[Tensor, "*shape"]:
    """Return noise levels whose logit is normal, a share of them uniform instead.

    Args:
        normal: standard normal draws.
        uniform: in [0, 1), the level where it is uniform.
        chance: in [0, 1); below `uniform_share` the level is uniform.

    Source:
        Esser et al. 2024 (Stable Diffusion 3), equation 19.
    """
    return torch.where(chance < uniform_share, uniform, torch.sigmoid(mean + deviation * normal))


def step_levels(
    num_steps: int, shift: float = 1.0, *, span: tuple[float, float] = (0.0, 1.0)
) -> list[float]:
    """Return the noise levels from 1 to 0 between which a sampler steps, `num_steps + 1` of them.

    Args:
        shift: above 1, more of the steps are spent at high levels.
        span: the part of the steps in which the level falls, as shares of all of them; before it
            the level is 1, after it 0. A first step of less than a quarter is left to the next one:
            a sampler of second order divides by its length.

    Source:
        Esser et al. 2024, section 5.3.2, for the shift.
    """
    if num_steps < 1 or shift <= 0:
        raise SoundreelError(f"needs num_steps >= 1 and shift > 0, got {num_steps} and {shift}")
    first, last = span
    shortest = 0.25 / num_steps / (last - first)
    falling = ((last - step / num_steps) / (last - first) for step in range(num_steps + 1))
    even = [1.0 if u > 1 - shortest else max(u, 0.0) for u in falling]
    return [shift * u / (1 + (shift - 1) * u) for u in even]


def level_path(start: AV, end: AV, levels: Mapping[str, Sequence[float]]) -> list[AV]:
    """Return the levels of all groups between which a sampler steps.

    Args:
        start, end: levels to begin and to end with, `batch group` each; where they are the same the
            level stays.
        levels: from 1 (the start) to 0 (the end), of each modality (see `step_levels`).
    """
    return [
        AV(
            torch.lerp(end["video"], start["video"], video),
            torch.lerp(end["audio"], start["audio"], audio),
        )
        for video, audio in zip(levels["video"], levels["audio"], strict=True)
    ]


def flow_sampler(
    answer: Answer,
    xt: AV,
    levels: Sequence[AV],
    deviation: AV,
    *,
    callback: Callable[[int, int], None] | None = None,
) -> AV:
    """Follow the flow along a path of levels; a group whose level stays is left as it is.

    The linear part is followed in closed form: with y = x_t / sqrt(n) and the angle
    a = atan2(t, (1 - t) s), the velocity slope x_t + error F says no more than dy / da = F. Steps
    in the angle are Adams-Bashforth's of second order, with one answer each; the first is Euler's.

    Args:
        answer: the network's answer F to y, at levels `batch group` each.
        xt: at `levels[0]`, `batch group token dim` each.
        levels: `batch group` each.
        deviation: of the data, as for `linear_velocity`.
        callback: `callback(step, num_steps)` after each step, counted from 1.

    Returns:
        The state at `levels[-1]`.

    Source:
        Karras et al. 2022, section 5 and Lu et al. 2022 (DPM-Solver), section 3.1, for solving the
        linear part exactly; Hairer et al. 1993, III.5, for steps of unequal length.
    """

    def moved(y: Tensor, now: Tensor, before: Tensor, turn: Tensor, last: Tensor) -> Tensor:
        ratio = torch.where(last == 0, 0.0, turn / (2 * last))
        return y + turn * (now + ratio * (now - before))

    angles = [deviation.map(_angle, level) for level in levels]
    num_steps = len(levels) - 1
    y = xt * linear_velocity(levels[0], deviation).input_scale
    before, last = None, angles[0] - angles[0]
    for step in range(num_steps):
        now, turn = answer(y, levels[step], step), angles[step + 1] - angles[step]
        y = y.map(moved, now, now if before is None else before, turn, last)
        before, last = now, turn
        if callback is not None:
            callback(step + 1, num_steps)
    return y.map(torch.mul, deviation.map(_spread, levels[-1]))


def _angle(deviation: Tensor, level: Tensor) -> Tensor:
    """Return atan2 of the noise's and the data's deviation in x_t, `batch group token dim`."""
    t = level[:, :, None, None].to(deviation)
    data = (1 - t) * deviation
    return torch.atan2(t.expand_as(data), data)


def _spread(deviation: Tensor, level: Tensor) -> Tensor:
    """Return the deviation of x_t, `batch group token dim`."""
    t = level[:, :, None, None].to(deviation)
    return torch.hypot((1 - t) * deviation, t)
