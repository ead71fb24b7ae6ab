import math
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import example, given, settings

from soundreel.diffusion.flow import (
    correlated_noise,
    flow_sampler,
    interpolate,
    level_path,
    linear_velocity,
    logit_normal,
    remainder,
    step_levels,
)
from soundreel.types import AV


def pair(batch=2, groups=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return AV(
        torch.randn(batch, groups, 4, 5, generator=generator, dtype=dtype),
        torch.randn(batch, groups, 2, 3, generator=generator, dtype=dtype),
    )


def levels(value, batch=2, groups=3):
    return AV(*(torch.full((batch, groups), value, dtype=torch.float64) for _ in range(2)))


def both(steps):
    """The same levels for pictures and sound."""
    return {"video": steps, "audio": steps}


def test_each_group_is_interpolated_at_its_own_level():
    x0, noise = pair(seed=1), pair(seed=2)
    level = AV(
        torch.tensor([[0.0, 0.25, 1.0]]).expand(2, 3), torch.tensor([[1.0, 0.5, 0.0]]).expand(2, 3)
    )
    xt = interpolate(x0, noise, level)
    assert torch.equal(xt.video[:, 0], x0.video[:, 0])
    assert torch.allclose(xt.video[:, 1], 0.75 * x0.video[:, 1] + 0.25 * noise.video[:, 1])
    assert torch.equal(xt.video[:, 2], noise.video[:, 2])
    assert torch.equal(xt.audio[:, 0], noise.audio[:, 0])
    assert torch.equal(xt.audio[:, 2], x0.audio[:, 2])


@settings(max_examples=20, deadline=None)
@given(t=st.floats(0.02, 0.98), s=st.floats(0.05, 20))
def test_linear_velocity_is_the_regression_of_the_velocity_on_the_noisy_data(t, s):
    # Cov(noise - x0, xt) / Var(xt), and the variance that it leaves, for Var(x0) = s^2.
    covariance = t - (1 - t) * s**2
    variance = (1 - t) ** 2 * s**2 + t**2
    left = 1 + s**2 - covariance**2 / variance
    deviation = AV(*(torch.full((1, 1), s, dtype=torch.float64) for _ in range(2)))
    linear = linear_velocity(levels(t, 1, 1), deviation)
    for modality in ("video", "audio"):
        assert float(linear.slope[modality]) == pytest.approx(covariance / variance)
        assert float(linear.error[modality]) == pytest.approx(math.sqrt(left), rel=1e-6)
        assert float(linear.input_scale[modality]) == pytest.approx(variance**-0.5)


def test_the_remainder_is_the_linear_velocitys_error_at_unit_variance():
    generator = torch.Generator().manual_seed(3)
    deviation = AV(torch.tensor([[0.2, 3.0]]), torch.tensor([[1.0]]))
    level = AV(torch.rand(20_000, 1, generator=generator), torch.rand(20_000, 1))
    x0 = deviation.map(lambda s: s * torch.randn(20_000, 1, *s.shape, generator=generator))
    noise = x0.map(lambda x: torch.randn(x.shape, generator=generator))
    xt, linear = interpolate(x0, noise, level), linear_velocity(level, deviation)
    wanted = remainder(noise - x0, xt, linear)
    velocity = linear.slope * xt + linear.error * wanted
    assert torch.allclose(velocity.video, (noise - x0).video, rtol=1e-4, atol=1e-4)
    assert wanted.video.var(dim=0).flatten().tolist() == pytest.approx([1.0, 1.0], abs=0.05)
    assert float((linear.input_scale * xt).video[..., 1].var()) == pytest.approx(1.0, abs=0.05)


def test_correlated_noise_has_unit_variance_and_the_asked_correlation():
    generator = torch.Generator().manual_seed(4)
    white = AV(torch.randn(20_000, 4, 1, 2, generator=generator), None)
    r = AV(torch.tensor([[0.0, 0.9]]), None)
    noise = correlated_noise(white, r).video[:, :, 0]
    assert noise.var(dim=0).flatten().tolist() == pytest.approx([1.0] * 8, abs=0.05)
    assert torch.equal(noise[..., 0], white.video[:, :, 0, 0])
    for first, second, wanted in ((0, 1, 0.9), (1, 3, 0.81)):
        seen = float((noise[:, first, 1] * noise[:, second, 1]).mean())
        assert seen == pytest.approx(wanted, abs=0.03)


def test_correlated_noise_made_in_pieces_is_the_whole_bit_for_bit():
    white, r = pair(groups=7, dtype=torch.float32), AV(torch.full((4, 5), 0.8), torch.zeros(2, 3))
    whole = correlated_noise(white, r)
    first = correlated_noise(white.map(lambda x: x[:, :3]), r)
    second = correlated_noise(white.map(lambda x: x[:, 3:]), r, first.map(lambda x: x[:, -1]))
    for modality in ("video", "audio"):
        pieces = torch.cat([first[modality], second[modality]], dim=1)
        assert torch.equal(pieces, whole[modality])


def test_logit_normal_levels_have_the_asked_median_and_share_of_uniform_ones():
    generator = torch.Generator().manual_seed(5)
    normal = torch.randn(50_000, generator=generator)
    uniform, chance = (torch.rand(50_000, generator=generator) for _ in range(2))
    level = logit_normal(normal, uniform, chance, mean=0.7, deviation=1.4)
    assert float(level.median()) == pytest.approx(1 / (1 + math.exp(-0.7)), abs=0.01)
    assert float(level.logit().std()) == pytest.approx(1.4, abs=0.03)
    mixed = logit_normal(normal, uniform, chance, mean=0.7, deviation=1.4, uniform_share=0.1)
    assert float((mixed == uniform).float().mean()) == pytest.approx(0.1, abs=0.01)


def test_level_path_falls_where_start_and_end_differ_and_stays_elsewhere():
    start = AV(torch.tensor([[1.0, 0.03]]), torch.tensor([[0.08, 1.0]]))
    end = AV(torch.tensor([[0.0, 0.03]]), torch.tensor([[0.08, 0.0]]))
    path = level_path(start, end, both(step_levels(4, 3.0)))
    assert len(path) == 5
    assert torch.equal(path[0].video, start.video)
    assert float(path[2].video[0, 0]) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))
    assert all(torch.equal(level.video[:, 1], start.video[:, 1]) for level in path)
    assert all(torch.equal(level.audio[:, 0], start.audio[:, 0]) for level in path)
    assert torch.equal(path[-1].audio, end.audio)
    with pytest.raises(ValueError, match="num_steps"):
        step_levels(0)


@given(
    st.integers(1, 30),
    st.floats(0.1, 10),
    st.floats(0, 0.9),
    st.floats(0.05, 1),
)
def test_levels_fall_within_their_span_alone(num_steps, shift, first, length):
    last = min(1.0, first + length)
    levels = step_levels(num_steps, shift, span=(first, last))
    assert len(levels) == num_steps + 1
    assert all(a >= b for a, b in pairwise(levels))
    for step, level in enumerate(levels):
        taken = step / num_steps
        assert 0 <= level <= 1 + 1e-9
        if taken <= first - 1e-6:
            assert level == pytest.approx(1, abs=1e-5)
        if taken >= last + 1e-6:
            assert level == 0


@given(st.integers(1, 40), st.floats(0, 1))
@example(9, 0.5)  # the lead ends at a step
@example(10, 0.2495)  # just before one
@example(10, 0.2505)  # just after
def test_no_first_step_is_so_short_that_a_sampler_divides_by_next_to_nothing(num_steps, lead):
    first = lead / (1 + lead)
    falls = [1 - level for level in step_levels(num_steps, span=(first, 1.0)) if level < 1]
    assert min(falls) >= 0.25 / num_steps / (1 - first) - 1e-9


def test_the_modalities_of_a_path_fall_at_their_own_steps():
    ones = AV(torch.ones(1, 1), torch.ones(1, 1))
    path = level_path(
        ones,
        ones.map(torch.zeros_like),
        {"video": [1.0, 1.0, 0.4, 0.0], "audio": [1.0, 0.5, 0.0, 0.0]},
    )
    assert [float(level.video) for level in path] == pytest.approx([1, 1, 0.4, 0])
    assert [float(level.audio) for level in path] == pytest.approx([1, 0.5, 0, 0])


def test_gaussian_data_is_sampled_exactly_in_a_single_step():
    """Its linear velocity is the whole of it, and x_0 = s x_1 along the flow."""
    deviation = AV(torch.tensor([[3.0]]).double(), torch.tensor([[0.3]]).double())
    noise = pair(groups=2).map(lambda x: x[:, :, :1, :1])
    start = AV(
        torch.tensor([[1.0, 0.1]]).expand(2, 2).double(), torch.ones(2, 2, dtype=torch.float64)
    )
    end = AV(
        torch.tensor([[0.0, 0.1]]).expand(2, 2).double(), torch.zeros(2, 2, dtype=torch.float64)
    )
    path = level_path(start, end, both(step_levels(1)))
    x0 = flow_sampler(lambda y, level, step: y.map(torch.zeros_like), noise, path, deviation)
    assert torch.allclose(x0.video[:, 0], 3.0 * noise.video[:, 0])
    assert torch.allclose(x0.video[:, 1], noise.video[:, 1])  # its level stays
    assert torch.allclose(x0.audio, 0.3 * noise.audio)


def test_the_sampler_is_of_second_order_on_data_of_two_values():
    """Data of +1 and -1 alike: E[x_0 | x_t] = tanh(x_t (1 - t) / t^2)."""
    deviation = AV(*(torch.ones(1, 1, dtype=torch.float64) for _ in range(2)))

    def answer(y, level, step):
        linear = linear_velocity(level, deviation)

        def velocity(y, t, scale):
            t = t[:, :, None, None].clamp(min=1e-9)
            xt = y / scale
            return (xt - torch.tanh(xt * (1 - t) / t**2)) / t

        xt = y / linear.input_scale
        return remainder(y.map(velocity, level, linear.input_scale), xt, linear)

    noise = AV(*(torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None, None, None],) * 2)
    start = AV(*(torch.ones(9, 1, dtype=torch.float64) for _ in range(2)))
    end = start.map(lambda t: torch.full_like(t, 0.3))

    def made(num_steps):
        path = level_path(start, end, both(step_levels(num_steps)))
        return flow_sampler(answer, noise, path, deviation).video

    exact = made(2000)
    errors = [float((made(num_steps) - exact).abs().max()) for num_steps in (20, 40)]
    assert errors[0] < 0.02
    assert errors[1] < errors[0] / 3
