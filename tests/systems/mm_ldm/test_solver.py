"""MM-LDM's two solvers on Gaussian data, whose exact denoiser is known."""

import pytest
import torch

from soundreel.diffusion.process import noise_level
from soundreel.diffusion.schedules import scaled_linear_schedule
from soundreel.systems.mm_ldm.solver import LATENT_SAMPLERS, evaluations, solve
from soundreel.types import AV

SCHEDULE = scaled_linear_schedule()
MEAN, STD = AV(torch.tensor(0.3), torch.tensor(-0.1)), AV(torch.tensor(0.5), torch.tensor(0.2))


class Exact:
    """Answers v for N(MEAN, STD^2); counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, xt, timestep):
        self.calls += 1
        level = noise_level(SCHEDULE, timestep[:1])
        alpha, sigma = level.alpha.item(), level.sigma.item()

        def v(x, mean, std):
            variance = alpha**2 * std**2 + sigma**2
            epsilon = sigma * (x - alpha * mean) / variance
            x0 = mean + alpha * std**2 * (x - alpha * mean) / variance
            return alpha * epsilon - sigma * x0

        return xt.map(v, MEAN, STD)


def truth(xt):
    """Follow the probability-flow equation, which scales deviations, to the first step's noise."""
    last, first = (noise_level(SCHEDULE, torch.tensor([step])) for step in (999, 0))

    def follow(x, mean, std):
        spread = [(at.alpha**2 * std**2 + at.sigma**2).sqrt() for at in (last, first)]
        return first.alpha * mean + spread[1] / spread[0] * (x - last.alpha * mean)

    return xt.map(follow, MEAN, STD)


def error(sampler, num_steps):
    generator = torch.Generator().manual_seed(0)
    xt = AV(*(torch.randn(2, 500, generator=generator) for _ in range(2)))
    denoiser = Exact()
    got = solve(denoiser, xt, SCHEDULE, sampler=sampler, num_steps=num_steps, prediction_type="v")
    assert denoiser.calls == evaluations(SCHEDULE, sampler, num_steps)
    difference = got.map(lambda x, wanted: (x - wanted).square().mean().sqrt(), truth(xt))
    return max(float(d / std) for d, std in zip(difference.tensors, STD.tensors, strict=True))


@pytest.mark.parametrize("sampler", LATENT_SAMPLERS)
def test_errors_fall_with_the_steps(sampler):
    errors = [error(sampler, num_steps) for num_steps in (5, 10, 50)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < {"ddim": 0.15, "dpm-solver++": 0.01, "unipc": 0.003}[sampler]


@pytest.mark.parametrize("sampler", ["dpm-solver++", "unipc"])
def test_fast_solvers_need_a_fifth_of_the_steps(sampler):
    assert error(sampler, 10) < error("ddim", 50)
    assert error(sampler, 1) < 1


def test_ddim_takes_more_steps_where_they_do_not_divide_the_chain():
    assert evaluations(SCHEDULE, "ddim", 15) == 16
    assert evaluations(SCHEDULE, "dpm-solver++", 15) == 15
