import math

import pytest
import torch

from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.ddpm import ddpm
from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.dpm_adaptive import dpm_solver_adaptive
from soundreel.diffusion.dpm_solver import (
    dpm_solver_multistep,
    dpm_solver_singlestep,
    singlestep_orders,
)
from soundreel.diffusion.dpm_update import Evaluation, dynamic_threshold
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import (
    noise_level,
    per_sample,
    to_epsilon,
    training_target,
)
from soundreel.diffusion.samplers import SAMPLERS, sample
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.diffusion.vp_time import VPTime
from soundreel.errors import SoundreelError
from soundreel.types import AV

SCHEDULE = linear_schedule()
BATCH_SHARES_STEPS = "dpm-solver++-official"


class Coupled:
    """A denoiser whose modalities depend on each other, within one sample only."""

    def __init__(self, prediction_type="epsilon"):
        self.prediction_type = prediction_type
        self.timesteps = []

    def __call__(self, xt, timestep):
        self.timesteps.append(timestep)
        level = noise_level(SCHEDULE, timestep)
        partner = {}
        for modality in xt.present:
            other = xt["audio" if modality == "video" and "audio" in xt.present else "video"]
            partner[modality] = other.flatten(1).mean(1)
        x0 = AV(
            *(
                None
                if value is None
                else 0.7 * torch.tanh(per_sample(level.alpha, value) * value * 1.5)
                + 0.2 * torch.sin(per_sample(partner[name], value))
                for name, value in (("video", xt.video), ("audio", xt.audio))
            )
        )
        epsilon = to_epsilon(x0, xt, level, "x0")
        return training_target(x0, epsilon, level, self.prediction_type)


def template(batch):
    return AV(torch.empty(batch, 2, 3, 4, 4), torch.empty(batch, 1, 32))


def generate(sampler, seeds, **options):
    noise = PerSampleNoise(seeds)
    return sample(
        Coupled(options.get("prediction_type", "epsilon")),
        noise(template(len(seeds))),
        SCHEDULE,
        noise=noise,
        sampler=sampler,
        **{"num_steps": 10, **options},
    )


def assert_close(got, wanted, tolerance):
    for modality in wanted.present:
        assert (got[modality] - wanted[modality]).abs().max() <= tolerance, modality


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != BATCH_SHARES_STEPS])
def test_a_seed_gives_the_same_clip_alone_and_among_eight(sampler):
    together = generate(sampler, [11, 12, 13, 14, 15, 16, 17, 18])
    alone = generate(sampler, [16])
    assert_close(alone, together.rows(slice(5, 6)), 1e-5)
    assert (together.video[0] - together.video[1]).abs().max() > 0.1


def test_the_official_adaptive_sampler_shares_its_steps_over_the_batch():
    """Documented: there the worst sample of a batch decides."""
    together = generate(BATCH_SHARES_STEPS, [11, 12, 13, 14])
    alone = generate(BATCH_SHARES_STEPS, [11])
    assert_close(alone, together.rows(slice(0, 1)), 0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("sampler", ["dpm-solver++-adaptive", "dpm-solver++-official"])
def test_the_adaptive_sampler_ends_when_the_network_answers_nothing_finite(sampler, value):
    """Only the second sample, and only after a while; the whole batch is refused."""

    def broken(xt, timestep):
        is_late = (timestep < 500) & (torch.arange(len(timestep)) == 1)
        shift = torch.where(is_late, value, 0.0)
        return Coupled()(xt, timestep).map(lambda x: x + per_sample(shift, x))

    noise = PerSampleNoise([1, 2])
    with pytest.raises(SoundreelError, match="not finite"):
        sample(broken, noise(template(2)), SCHEDULE, noise=noise, sampler=sampler, clip_x0=False)


@pytest.mark.parametrize("sampler", ["dpm-solver++-adaptive", "dpm-solver++-official"])
def test_the_adaptive_sampler_ends_where_no_step_is_short_enough(sampler):
    signs = torch.Generator().manual_seed(0)

    def jumping(xt, timestep):
        return xt.map(lambda x: 1e30 * torch.randn(x.shape, generator=signs))

    noise = PerSampleNoise([1])
    with pytest.raises(SoundreelError, match="fallen to nothing"):
        sample(jumping, noise(template(1)), SCHEDULE, noise=noise, sampler=sampler, clip_x0=False)


@pytest.mark.parametrize("num_steps", [0, -1])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_impossible_numbers_of_steps_are_refused(sampler, num_steps):
    noise = PerSampleNoise([1])
    with pytest.raises(SoundreelError, match="num_steps must be at least 1"):
        sample(
            Coupled(),
            noise(template(1)),
            SCHEDULE,
            noise=noise,
            sampler=sampler,
            num_steps=num_steps,
        )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_images_without_sound_can_be_sampled(sampler):
    noise = PerSampleNoise([1, 2])
    got = sample(
        Coupled(),
        noise(AV(torch.empty(2, 3, 4, 4), None)),
        SCHEDULE,
        noise=noise,
        sampler=sampler,
        num_steps=5,
    )
    assert got.audio is None
    assert bool(got.video.isfinite().all())


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm-solver++"])
@pytest.mark.parametrize("prediction_type", ["x0", "v"])
def test_what_the_network_predicts_does_not_change_the_sample(sampler, prediction_type):
    """Up to half a training step where the solver works between the steps."""
    wanted = generate(sampler, [1, 2])
    got = generate(sampler, [1, 2], prediction_type=prediction_type)
    assert_close(got, wanted, 5e-3 if sampler == "dpm-solver++" else 1e-4)


@pytest.mark.parametrize(
    "sampler", ["dpm-solver++", "unipc", "dpm-solver", "ddim", "ddpm", "dpm-solver-official"]
)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_as_many_evaluations_as_asked_for(sampler, num_steps):
    denoiser, noise = Coupled(), PerSampleNoise([0])
    steps = []
    sample(
        denoiser,
        noise(template(1)),
        SCHEDULE,
        noise=noise,
        sampler=sampler,
        num_steps=num_steps,
        callback=lambda step, total, xt: steps.append((step, total)),
    )
    assert len(denoiser.timesteps) == num_steps
    assert all(not t.is_floating_point() for t in denoiser.timesteps)
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][0] == steps[-1][1]


def test_a_callback_that_raises_stops_the_sampler():
    class StopError(Exception):
        pass

    def stop(step, num_steps, xt):
        if step == 2:
            raise StopError

    denoiser, noise = Coupled(), PerSampleNoise([0])
    with pytest.raises(StopError):
        sample(denoiser, noise(template(1)), SCHEDULE, noise=noise, callback=stop)
    assert len(denoiser.timesteps) == 2


@pytest.mark.parametrize("sampler", ["dpm-solver++", "ddim", "ddpm"])
def test_clipping_keeps_estimates_within_one(sampler):
    def too_large(xt, timestep):
        level = noise_level(SCHEDULE, timestep)
        return to_epsilon(xt.map(lambda x: torch.full_like(x, 3.0)), xt, level, "x0")

    ends = {}
    for clip_x0 in (True, False):
        noise = PerSampleNoise([0])
        ends[clip_x0] = sample(
            too_large,
            noise(template(1)),
            SCHEDULE,
            noise=noise,
            sampler=sampler,
            num_steps=20,
            clip_x0=clip_x0,
        )
    assert float(ends[True].video.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(ends[False].video.mean()) == pytest.approx(3.0, abs=0.02)


def test_sampling_leaves_no_graph_behind():
    weight = torch.ones((), requires_grad=True)
    noise = PerSampleNoise([0])

    def denoiser(xt, timestep):
        return xt.map(lambda x: x * weight)

    assert not sample(denoiser, noise(template(1)), SCHEDULE, noise=noise).video.requires_grad


def test_unknown_samplers_and_impossible_settings_are_refused():
    noise = PerSampleNoise([0])
    start = noise(template(1))
    with pytest.raises(ValueError, match="sampler is one of dpm-solver\\+\\+"):
        sample(Coupled(), start, SCHEDULE, noise=noise, sampler="euler")
    with pytest.raises(ValueError, match="pass the full schedule"):
        dpm_solver_multistep(Coupled(), start, respace(SCHEDULE, 10))
    with pytest.raises(ValueError, match="order is 1, 2 or 3"):
        dpm_solver_singlestep(Coupled(), start, SCHEDULE, order=4)
    with pytest.raises(ValueError, match="at least 3 steps"):
        dpm_solver_singlestep(Coupled(), start, SCHEDULE, num_steps=2)
    with pytest.raises(ValueError, match="order 2 or 3"):
        dpm_solver_adaptive(Coupled(), start, SCHEDULE, order=1)
    with pytest.raises(ValueError, match="pass a noise source"):
        ddim(Coupled(), start, respace(SCHEDULE, 10), eta=1.0)
    with pytest.raises(ValueError, match="use form='x0'"):
        Evaluation(thresholding="dynamic")


def test_learned_variances_scale_the_ancestral_noise():
    schedule = respace(SCHEDULE, 2)
    start, step_noise = PerSampleNoise([0])(template(1)), PerSampleNoise([1])(template(1))

    def run(interpolation):
        states = []

        def denoiser(xt, timestep):
            return Prediction(xt * 0.0, xt.map(torch.full_like, interpolation))

        def noise(xt):
            return step_noise

        ddpm(denoiser, start, schedule, noise=noise, callback=lambda k, n, xt: states.append(xt))
        return states[0].video

    low, high = run(-1.0), run(1.0)
    deviation = schedule.betas[1].sqrt() - schedule.posterior_variance[1].sqrt()
    assert torch.allclose(high - low, step_noise.video * float(deviation), atol=1e-5)


def test_full_eta_gives_ddim_the_posterior_noise_of_ancestral_sampling():
    """At eta 1 a DDIM step is a draw from q(x_{t-1} | x_t, x_0)."""
    schedule, index = respace(SCHEDULE, 10), 6
    start, step_noise = PerSampleNoise([0])(template(1)), PerSampleNoise([1])(template(1))
    states = {}
    for name, run in (("ddim", ddim), ("ddpm", ddpm)):
        seen = []

        def denoiser(xt, timestep):
            return Prediction(xt * 0.1, xt.map(torch.full_like, -1.0))

        options = {"eta": 1.0} if name == "ddim" else {}
        run(
            denoiser,
            start,
            schedule,
            noise=lambda xt: step_noise,
            prediction_type="x0",
            callback=lambda k, n, xt, seen=seen: seen.append(xt),
            **options,
        )
        states[name] = seen[index]
    assert_close(states["ddim"], states["ddpm"], 1e-5)


@pytest.mark.parametrize("num_steps", range(3, 20))
@pytest.mark.parametrize("order", [1, 2, 3])
def test_single_steps_use_every_evaluation(num_steps, order):
    orders = singlestep_orders(num_steps, order)
    assert sum(orders) == num_steps
    assert max(orders) <= order
    assert orders == sorted(orders, reverse=True)


def test_dynamic_thresholding_works_sample_by_sample():
    x0 = torch.cat([torch.linspace(-4, 4, 1001)[None], torch.linspace(-0.5, 0.5, 1001)[None]])
    got = dynamic_threshold(x0)
    assert torch.equal(got[1], x0[1])
    assert float(got[0].max()) == pytest.approx(1.0)
    bound = float(torch.quantile(x0[0].abs(), 0.995))
    assert float(got[0, 510]) == pytest.approx(float(x0[0, 510]) / bound)


def test_times_and_log_snrs_invert_each_other():
    time = VPTime(SCHEDULE, torch.device("cpu"))
    points = torch.linspace(0.001, 1, 777, dtype=torch.float64)
    assert torch.allclose(time.time_of(time.half_log_snr(points)), points, atol=1e-9)
    level = time.level(points)
    assert torch.allclose(level.alpha**2 + level.sigma**2, torch.ones_like(points), atol=1e-12)


@pytest.mark.parametrize("spacing", ["log_snr", "uniform", "quadratic"])
def test_grids_fall_from_end_to_end(spacing):
    time = VPTime(SCHEDULE, torch.device("cpu"))
    grid = time.grid(spacing, 20, time.last, time.first)
    assert len(grid) == 21
    assert bool((grid.diff() < 0).all())
    assert float(grid[0]) == pytest.approx(1.0)
    assert float(grid[-1]) == pytest.approx(0.001)
    measure = {"log_snr": time.half_log_snr, "uniform": lambda t: t, "quadratic": torch.sqrt}
    steps = measure[spacing](grid).diff()
    assert torch.allclose(steps, steps.mean().expand_as(steps), rtol=1e-6)
