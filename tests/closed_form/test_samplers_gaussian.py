"""Samplers on data whose exact denoiser is known.

Data N(mean, std^2), another one for each modality: the best noise estimate at noise level
(alpha, sigma) is sigma (x - alpha mean) / (alpha^2 std^2 + sigma^2). A sampler without error turns
standard normal noise into samples with that mean and standard deviation.
"""

import math
from functools import partial

import pytest
import torch

from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.dpm_solver import dpm_solver_multistep
from soundreel.diffusion.dpm_update import Evaluation, Solver
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import noise_level, to_epsilon
from soundreel.diffusion.samplers import sample
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.diffusion.unipc import unipc
from soundreel.diffusion.vp_time import VPTime
from soundreel.diffusion.zero_shot import gradient_guide, replacement_guide, zero_shot_ddpm
from soundreel.types import AV

MEAN = {"video": 0.3, "audio": -0.1}
STD = {"video": 0.5, "audio": 0.2}


def oracle(schedule):
    def denoiser(xt, timestep):
        level = noise_level(schedule, timestep)
        alpha, sigma = float(level.alpha[0]), float(level.sigma[0])
        return AV(
            *(
                sigma * (xt[m] - alpha * MEAN[m]) / (alpha**2 * STD[m] ** 2 + sigma**2)
                for m in ("video", "audio")
            )
        )

    return denoiser


def standardised_noise(size=10_000):
    """Noise whose own mean and standard deviation are exactly 0 and 1."""
    noise = PerSampleNoise([0])(AV(torch.empty(1, size), torch.empty(1, size)))
    return noise.map(lambda x: ((x - x.mean()) / x.std()).double())


def errors(samples):
    """Error of mean and standard deviation, both relative to the standard deviation."""
    return {
        m: (
            abs(float(samples[m].mean()) - MEAN[m]) / STD[m],
            abs(float(samples[m].std()) / STD[m] - 1),
        )
        for m in samples.present
    }


def run(sampler, num_steps):
    schedule = linear_schedule()
    return errors(
        sample(
            oracle(schedule),
            standardised_noise(),
            schedule,
            noise=PerSampleNoise([1]),
            sampler=sampler,
            num_steps=num_steps,
            clip_x0=False,
        )
    )


def test_the_default_sampler_is_within_two_percent_at_twenty_steps():
    schedule = linear_schedule()
    samples = sample(
        oracle(schedule),
        standardised_noise(),
        schedule,
        noise=PerSampleNoise([1]),
        clip_x0=False,
    )
    for mean_error, std_error in errors(samples).values():
        assert mean_error < 0.02
        assert std_error < 0.02


@pytest.mark.parametrize(
    ("sampler", "num_steps", "tolerance"),
    [
        ("dpm-solver", 20, 0.02),
        ("dpm-solver-official", 20, 0.02),
        ("dpm-solver++", 50, 0.005),
        ("unipc", 20, 0.015),
        ("dpm-solver++-adaptive", 20, 0.02),
        ("ddim", 250, 0.03),
        ("ddpm", 250, 0.04),
    ],
)
def test_every_sampler_converges(sampler, num_steps, tolerance):
    for mean_error, std_error in run(sampler, num_steps).values():
        assert mean_error < tolerance
        assert std_error < tolerance


def test_fast_solvers_beat_ddim_at_twenty_steps():
    """Otherwise they were not worth their formulas."""
    ddim = run("ddim", 20)
    for sampler in ("dpm-solver", "dpm-solver++"):
        for m, (_, std_error) in run(sampler, 20).items():
            assert std_error < 0.2 * ddim[m][1]


def exact_estimate(estimate, xt, level):
    """The oracle at the exact noise level, not at that of the nearest training step."""
    return Prediction(
        AV(
            *(
                (float(level.sigma) ** 2 * MEAN[m] + float(level.alpha) * STD[m] ** 2 * xt[m])
                / (float(level.alpha) ** 2 * STD[m] ** 2 + float(level.sigma) ** 2)
                for m in ("video", "audio")
            )
        )
    )


def exact_flow(xt, high, low):
    """Where the probability flow takes `xt` from one noise level to another."""

    def follow(m):
        spread_high, spread_low = (
            math.sqrt(float(level.alpha) ** 2 * STD[m] ** 2 + float(level.sigma) ** 2)
            for level in (high, low)
        )
        centred = (xt[m] - float(high.alpha) * MEAN[m]) / spread_high
        return float(low.alpha) * MEAN[m] + spread_low * centred

    return AV(follow("video"), follow("audio"))


def one_update(solver, method, start, h):
    """One update of `h` in lambda from lambda = -1, and where the exact flow goes."""
    time = solver.time
    position = torch.tensor([-1.0], dtype=torch.float64)
    begin, end = time.time_of(position), time.time_of(position + h)

    def exact(t):
        return exact_flow(start, time.level(begin), time.level(t))

    m = solver.evaluate(start, begin)
    if method == "first":
        got = solver.first_order(start, begin, end, m)
    elif method in ("single-second", "single-third"):
        shares = [torch.tensor([s], dtype=torch.float64) for s in (1 / 3, 2 / 3)]
        between, middle = solver.part_way(start, begin, end, m, shares[0])
        m1 = solver.evaluate(between, middle)
        if method == "single-second":
            got = solver.second_order(start, begin, end, m, m1, shares[0])
        else:
            got = solver.third_order(start, begin, end, [m, m1], shares)
    else:
        times = [begin, *(time.time_of(position - back * h) for back in (0.8, 2.0))]
        if method.startswith("corrected"):
            times.insert(1, end)
        answers = [m, *(solver.evaluate(exact(t), t) for t in times[1:])]
        shares = [solver.share(begin, t, end) for t in times]
        if method in ("multi-second", "corrected-first"):
            got = solver.second_order(start, begin, end, *answers[:2], shares[1])
        else:
            size = {"multi-third": 3, "corrected-second": 3, "corrected-third": 4}[method]
            got = solver.polynomial(start, begin, end, answers[:size], shares[:size])
    return got, exact(end)


@pytest.mark.parametrize("form", ["epsilon", "x0"])
@pytest.mark.parametrize(
    ("method", "order"),
    [
        ("first", 1),
        ("single-second", 2),
        ("single-third", 3),
        ("multi-second", 2),
        ("multi-third", 3),
        ("corrected-first", 2),
        ("corrected-second", 3),
        ("corrected-third", 4),
    ],
)
def test_an_update_of_order_p_errs_by_its_step_to_the_power_p_plus_one(method, order, form):
    schedule = linear_schedule()
    time = VPTime(schedule, torch.device("cpu"))
    solver = Solver(oracle(schedule), time, Evaluation(form=form), exact_estimate)
    start = AV(*(torch.tensor([[-1.5, 0.5, 2.0]], dtype=torch.float64),) * 2)
    found = []
    for h in (0.04, 0.02):
        got, wanted = one_update(solver, method, start, h)
        found.append(max(float((got[m] - wanted[m]).abs().max()) for m in got.present))
    assert math.log2(found[0] / found[1]) == pytest.approx(order + 1, abs=0.2)


def distance_to_exact_flow(run):
    """Largest error of a solver's samples, its estimates being exact at every noise level."""
    schedule = linear_schedule()
    time = VPTime(schedule, torch.device("cpu"))
    start = AV(*(torch.tensor([[-1.5, 0.5, 2.0]], dtype=torch.float64),) * 2)
    high, low = (time.level(time.at(t, 1)) for t in (time.last, time.first))
    got = run(oracle(schedule), start, schedule, guide=exact_estimate)
    wanted = exact_flow(start, high, low)
    return max(float((got[m] - wanted[m]).abs().max()) for m in got.present)


@pytest.mark.parametrize("order", [1, 2])
def test_unipc_converges_with_one_order_more_than_its_predictor(order):
    errors = [
        distance_to_exact_flow(partial(unipc, num_steps=num_steps, order=order))
        for num_steps in (80, 160)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order + 1, abs=0.1)


@pytest.mark.parametrize("order", [2, 3])
def test_unipc_is_closer_than_its_predictor_alone(order):
    ours, predictor = (
        distance_to_exact_flow(
            partial(solver, num_steps=40, order=order, evaluation=Evaluation(form="x0"))
        )
        for solver in (unipc, dpm_solver_multistep)
    )
    assert ours < 0.5 * predictor


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_takes_the_steps_of_diffusers(order):
    from diffusers import UniPCMultistepScheduler

    schedule, num_steps = linear_schedule(), 7
    time = VPTime(schedule, torch.device("cpu"))
    start = standardised_noise(50)
    theirs = UniPCMultistepScheduler(
        solver_order=order, prediction_type="sample", lower_order_final=False
    )
    theirs.set_timesteps(num_steps)
    grid = time.grid("log_snr", num_steps, time.last, time.first)
    theirs.sigmas = (-time.half_log_snr(grid)).exp()
    theirs.set_begin_index(0)
    x = start
    for t, timestep in zip(grid[:-1], theirs.timesteps, strict=True):
        answer = exact_estimate(None, x, time.level(time.at(float(t), 1))).mean_output
        x = AV(theirs.step(answer["video"], timestep, x["video"]).prev_sample, x.audio)
    ours = unipc(
        oracle(schedule), start, schedule, num_steps=num_steps, order=order, guide=exact_estimate
    )
    assert torch.allclose(ours["video"], x["video"], atol=1e-6)


CORRELATION = 0.9


def joint_oracle(schedule):
    """Exact denoiser of pairs of one pixel and one sound sample that are correlated."""
    mean = torch.tensor([MEAN["video"], MEAN["audio"]])
    off = CORRELATION * STD["video"] * STD["audio"]
    covariance = torch.tensor([[STD["video"] ** 2, off], [off, STD["audio"] ** 2]])

    def denoiser(xt, timestep):
        level = noise_level(schedule, timestep)
        alpha, sigma = float(level.alpha[0]), float(level.sigma[0])
        gain = (
            alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2))
        )
        both = torch.stack([xt.video, xt.audio])
        x0 = mean[:, None, None] + torch.einsum(
            "ij,jbn->ibn", gain, both - alpha * mean[:, None, None]
        )
        return to_epsilon(AV(x0[0], x0[1]), xt, level, "x0")

    return denoiser


def follows(samples, given, name):
    """Slope of the generated modality against the given one, as a share of the true slope."""
    other = "audio" if name == "video" else "video"
    x, y = given[name].flatten() - MEAN[name], samples[other].flatten() - MEAN[other]
    slope = float((x * y).mean() / (x * x).mean())
    return slope / (CORRELATION * STD[other] / STD[name])


def conditional(sampler, name, weight):
    schedule = linear_schedule()
    generator = torch.Generator().manual_seed(5)
    signal = MEAN[name] + STD[name] * torch.randn(1, 4000, generator=generator)
    given = AV(None, None).replace(name, signal)
    noise = PerSampleNoise([7])
    start = noise(AV(torch.empty(1, 4000), torch.empty(1, 4000)))
    if sampler == "zero_shot_ddpm":
        return given, zero_shot_ddpm(
            joint_oracle(schedule),
            start,
            respace(schedule, 100),
            given=given,
            noise=noise,
            weight=weight,
            clip_x0=False,
        )
    guide = gradient_guide(given, start, weight=weight)
    if weight == 0:
        guide = replacement_guide(given, start)
    return given, sample(
        joint_oracle(schedule),
        start,
        schedule,
        noise=noise,
        sampler=sampler,
        guide=guide,
        clip_x0=False,
    )


@pytest.mark.parametrize("name", ["video", "audio"])
@pytest.mark.parametrize("sampler", ["dpm-solver++", "ddim", "ddpm"])
def test_generated_modality_follows_the_given_one_and_more_so_with_guidance(sampler, name):
    given, replaced = conditional(sampler, name, 0.0)
    _, guided = conditional(sampler, name, 2.0)
    by_replacement = follows(replaced, given, name)
    by_guidance = follows(guided, given, name)
    assert by_replacement > 0.1
    assert by_guidance - by_replacement > 0.1
    assert abs(1 - by_guidance) < abs(1 - by_replacement)


@pytest.mark.parametrize("name", ["video", "audio"])
def test_the_ancestral_rule_follows_the_given_modality_too(name):
    given, replaced = conditional("zero_shot_ddpm", name, 0.0)
    _, guided = conditional("zero_shot_ddpm", name, 4.0)
    by_replacement = follows(replaced, given, name)
    by_guidance = follows(guided, given, name)
    assert by_replacement > 0.1
    assert by_guidance - by_replacement > 0.1
    assert abs(1 - by_guidance) < abs(1 - by_replacement)
