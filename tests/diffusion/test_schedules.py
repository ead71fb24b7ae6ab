import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.config_io import config_from_json
from soundreel.diffusion.config import DiffusionConfig
from soundreel.diffusion.schedules import (
    SCHEDULES,
    Schedule,
    cosine_schedule,
    linear_schedule,
    respace,
    scaled_linear_schedule,
    space_timesteps,
)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_only_ever_falls(name):
    schedule = SCHEDULES[name]()
    assert len(schedule) == schedule.num_train_timesteps == 1000
    assert bool((schedule.alpha_bar.diff() < 0).all())
    assert float(schedule.alpha_bar[0]) > 0.99
    assert float(schedule.alpha_bar[-1]) < 0.01


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 300), sections=st.integers(1, 3))
def test_kept_steps_ascend_without_repeats(count, sections):
    kept = space_timesteps(1000, ",".join([str(count)] * sections))
    assert len(kept) == count * sections
    assert kept == sorted(set(kept))
    assert kept[0] == 0
    assert kept[-1] < 1000


@pytest.mark.parametrize("spacing", [1, 7, "ddim25", "10,15,20"])
def test_respacing_keeps_the_noise_level_of_every_kept_step(spacing):
    full = scaled_linear_schedule()
    short = respace(full, spacing)
    assert torch.allclose(short.alpha_bar, full.alpha_bar[short.timestep_map], rtol=1e-12)
    assert float(short.alpha_bar_prev[0]) == 1.0


def test_respacing_twice_still_names_original_steps():
    twice = respace(respace(linear_schedule(), "ddim100"), "ddim10")
    assert twice.timestep_map.tolist() == list(range(0, 1000, 100))
    assert twice.num_train_timesteps == 1000


def test_compvis_spacing_ends_at_the_noise_level_of_step_zero():
    full = scaled_linear_schedule()
    short = respace(full, "compvis50")
    assert short.timestep_map.tolist() == list(range(1, 1000, 20))
    assert float(short.alpha_bar_prev[0]) == pytest.approx(float(full.alpha_bar[0]), rel=1e-15)
    assert torch.allclose(short.alpha_bar, full.alpha_bar[short.timestep_map], rtol=1e-12)


@pytest.mark.parametrize("spacing", ["", "ddim", "0", "-3", "10,,5", "compvis0", "2.5", "fast"])
def test_meaningless_spacings_are_refused(spacing):
    with pytest.raises(ValueError, match="spacing is"):
        space_timesteps(1000, spacing)


@pytest.mark.parametrize("spacing", ["1001", "600,300", "ddim333", "compvis501"])
def test_impossible_spacings_are_refused(spacing):
    with pytest.raises(ValueError, match="timesteps"):
        space_timesteps(1000, spacing)


def test_too_short_linear_schedules_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        linear_schedule(20)
    with pytest.raises(ValueError, match="1 or more"):
        cosine_schedule(0)


def test_a_chain_of_one_step_has_finite_tables():
    one = respace(linear_schedule(), 1)
    assert bool(one.posterior_log_variance_clipped.isfinite().all())
    assert float(one.fixed_large_variance[0]) == pytest.approx(float(one.betas[0]))
    assert isinstance(one, Schedule)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_can_be_configured(name):
    config = config_from_json(DiffusionConfig, {"schedule": name}, "x")
    assert torch.equal(config.build().betas, SCHEDULES[name]().betas)
