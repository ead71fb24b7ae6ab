import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.diffusion.process import (
    model_log_variance,
    noise_level,
    posterior_mean,
    q_sample,
    to_epsilon,
    to_x0,
    training_target,
)
from soundreel.diffusion.schedules import cosine_schedule, linear_schedule, respace
from soundreel.types import AV

TYPES = ["epsilon", "x0", "v"]


def draw(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return AV(
        torch.randn(3, 2, 3, 4, 4, generator=generator, dtype=dtype),
        torch.randn(3, 1, 32, generator=generator, dtype=dtype),
    )


def assert_same(got, wanted, tolerance=1e-9):
    assert got.present == wanted.present
    for modality in wanted.present:
        scale = wanted[modality].abs().max()
        assert (got[modality] - wanted[modality]).abs().max() <= tolerance * scale


@pytest.mark.parametrize("prediction_type", TYPES)
@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.integers(0, 999), min_size=3, max_size=3), seed=st.integers(0, 2**31))
def test_the_training_target_gives_back_clean_data_and_noise(prediction_type, steps, seed):
    schedule, timestep = linear_schedule(), torch.tensor(steps)
    x0, noise = draw(seed), draw(seed + 1)
    level = noise_level(schedule, timestep)
    xt = q_sample(x0, timestep, noise, schedule)
    target = training_target(x0, noise, level, prediction_type)
    assert_same(to_x0(target, xt, level, prediction_type), x0)
    assert_same(to_epsilon(target, xt, level, prediction_type), noise)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_any_output_means_the_same_noisy_sample_by_x0_and_by_epsilon(prediction_type):
    schedule, timestep = cosine_schedule(), torch.tensor([0, 500, 900])
    level, xt, output = noise_level(schedule, timestep), draw(1), draw(2)
    x0 = to_x0(output, xt, level, prediction_type)
    epsilon = to_epsilon(output, xt, level, prediction_type)
    assert_same(q_sample(x0, timestep, epsilon, schedule), xt)


def test_image_only_pairs_pass_through_every_function():
    schedule, timestep = linear_schedule(), torch.tensor([0, 999])
    image = AV(torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)), None)
    level = noise_level(schedule, timestep)
    xt = q_sample(image, timestep, image, schedule)
    for prediction_type in TYPES:
        for found in (to_x0, to_epsilon):
            assert found(image, xt, level, prediction_type).audio is None
    assert posterior_mean(image, xt, timestep, schedule).present == ("video",)
    assert model_log_variance(None, xt, timestep, schedule).video.shape == xt.video.shape


def test_the_posterior_at_the_first_step_is_the_clean_data():
    x0, xt = draw(1), draw(2)
    first = torch.zeros(3, dtype=torch.int64)
    assert_same(posterior_mean(x0, xt, first, linear_schedule()), x0)


def test_the_posterior_agrees_with_the_joint_distribution_of_two_steps():
    """E[x_{t-1} | x_t, x_0] from the covariances of the two noisy variables."""
    schedule, step = respace(linear_schedule(), 20), 11
    abar, before = float(schedule.alpha_bar[step]), float(schedule.alpha_bar_prev[step])
    ratio = (abar / before) ** 0.5
    gain = ratio * (1 - before) / (1 - abar)
    x0, xt = draw(3), draw(4)
    wanted = x0 * before**0.5 + (xt - x0 * abar**0.5) * gain
    assert_same(posterior_mean(x0, xt, torch.full((3,), step), schedule), wanted)
    variance = (1 - before) - gain * ratio * (1 - before)
    assert float(schedule.posterior_variance[step]) == pytest.approx(variance, rel=1e-10)


@pytest.mark.parametrize(("output", "table"), [(-1.0, "posterior"), (1.0, "beta")])
def test_learned_variance_runs_from_the_posterior_variance_to_beta(output, table):
    schedule, timestep = linear_schedule(), torch.tensor([1, 500, 999])
    xt = draw(0)
    found = model_log_variance(xt.map(torch.full_like, output), xt, timestep, schedule)
    wanted = {
        "posterior": schedule.posterior_log_variance_clipped,
        "beta": schedule.betas.log(),
    }[table][timestep]
    for modality in xt.present:
        assert torch.allclose(found[modality].flatten(1).mean(1), wanted, rtol=1e-12)
