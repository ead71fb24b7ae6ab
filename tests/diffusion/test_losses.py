import pytest
import torch

from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.losses import (
    diffusion_loss,
    discretized_gaussian_log_likelihood,
    gaussian_kl,
    variational_bound,
)
from soundreel.diffusion.process import noise_level, q_sample, to_epsilon, training_target
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.types import AV


def draw(seed, dtype=torch.float64, batch=4):
    generator = torch.Generator().manual_seed(seed)
    return AV(
        torch.randn(batch, 2, 3, 4, 4, generator=generator, dtype=dtype).clamp(-1, 1),
        torch.randn(batch, 1, 32, generator=generator, dtype=dtype).clamp(-1, 1),
    )


TIMESTEP = torch.tensor([0, 300, 600, 999])


@pytest.mark.parametrize("prediction_type", ["epsilon", "x0", "v"])
def test_a_perfect_denoiser_has_no_loss(prediction_type):
    schedule, x0, noise = linear_schedule(), draw(0), draw(1)
    target = training_target(x0, noise, noise_level(schedule, TIMESTEP), prediction_type)
    got = diffusion_loss(
        lambda xt, timestep: target,
        x0,
        TIMESTEP,
        noise,
        schedule,
        prediction_type=prediction_type,
    )
    assert got.loss.tolist() == [0.0] * 4


def test_modalities_count_equally_whatever_their_sizes():
    x0, noise = draw(0), draw(1)
    got = diffusion_loss(
        lambda xt, timestep: noise + AV(noise.video.new_tensor(2.0), noise.audio.new_tensor(1.0)),
        x0,
        TIMESTEP,
        noise,
        linear_schedule(),
    )
    assert torch.allclose(got.terms["mse_video"], torch.full((4,), 4.0, dtype=torch.float64))
    assert torch.allclose(got.terms["mse_audio"], torch.full((4,), 1.0, dtype=torch.float64))
    assert torch.allclose(got.loss, torch.full((4,), 5.0, dtype=torch.float64))


def test_the_denoiser_sees_noised_data_and_original_steps():
    schedule, seen = respace(linear_schedule(), 50), {}

    def denoiser(xt, timestep):
        seen.update(xt=xt, timestep=timestep)
        return xt

    index = torch.tensor([0, 10, 30, 49])
    diffusion_loss(denoiser, draw(0), index, draw(1), schedule)
    assert torch.equal(seen["timestep"], schedule.timestep_map[index])
    wanted = q_sample(draw(0), index, draw(1), schedule)
    assert torch.equal(seen["xt"].video, wanted.video)


def test_image_only_losses_have_image_terms_only():
    x0, noise = AV(draw(0).video, None), AV(draw(1).video, None)
    got = diffusion_loss(lambda xt, timestep: xt, x0, TIMESTEP, noise, linear_schedule())
    assert set(got.terms) == {"mse_video"}
    assert torch.equal(got.loss, got.terms["mse_video"])


def test_the_bound_trains_the_variance_and_not_the_mean():
    mean, variance = draw(2).map(torch.Tensor.requires_grad_), draw(3)
    variance = variance.map(lambda x: x.requires_grad_())
    x0, noise = draw(0), draw(1)
    got = diffusion_loss(
        lambda xt, timestep: Prediction(mean, variance),
        x0,
        TIMESTEP,
        noise,
        linear_schedule(),
        variance="learned_range",
    )
    bound = got.terms["vb_video"] + got.terms["vb_audio"]
    assert torch.autograd.grad(bound.sum(), mean.video, allow_unused=True, retain_graph=True) == (
        None,
    )
    (gradient,) = torch.autograd.grad(bound.sum(), variance.audio)
    assert float(gradient.abs().max()) > 0


def test_the_variational_objective_trains_both():
    mean, variance = draw(2), draw(3)
    mean.video.requires_grad_()
    got = diffusion_loss(
        lambda xt, timestep: Prediction(mean, variance),
        draw(0),
        TIMESTEP,
        draw(1),
        linear_schedule(),
        variance="learned_range",
        objective="variational",
    )
    assert set(got.terms) == {"vb_video", "vb_audio"}
    (gradient,) = torch.autograd.grad(got.loss.sum(), mean.video)
    assert float(gradient.abs().max()) > 0


def test_the_bound_vanishes_for_the_exact_posterior():
    schedule, timestep = linear_schedule(), torch.tensor([1, 300, 600, 999])
    x0, noise = draw(0), draw(1)
    xt = q_sample(x0, timestep, noise, schedule)
    exact = Prediction(noise, noise.map(torch.full_like, -1.0))
    bound = variational_bound(exact, x0, xt, timestep, schedule, "epsilon")
    for modality in bound.present:
        assert float(bound[modality].abs().max()) < 1e-9


def test_all_prediction_types_have_the_same_bound():
    schedule, x0, xt = linear_schedule(), draw(0), draw(1)
    level = noise_level(schedule, TIMESTEP)
    epsilon = to_epsilon(x0 * 0.9, xt, level, "x0")
    bounds = [
        variational_bound(Prediction(output), x0, xt, TIMESTEP, schedule, kind)
        for output, kind in ((x0 * 0.9, "x0"), (epsilon, "epsilon"))
    ]
    assert torch.allclose(bounds[0].audio, bounds[1].audio, rtol=1e-9)


def test_a_missing_or_unexpected_variance_is_an_error():
    x0, noise, schedule = draw(0), draw(1), linear_schedule()
    with pytest.raises(ValueError, match="gave no variance"):
        diffusion_loss(lambda xt, t: xt, x0, TIMESTEP, noise, schedule, variance="learned_range")
    with pytest.raises(ValueError, match="gave a variance"):
        diffusion_loss(lambda xt, t: Prediction(xt, xt), x0, TIMESTEP, noise, schedule)


def test_divergence_agrees_with_torch():
    m1, m2, v1, v2 = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(
        normal(m1, (0.5 * v1).exp()), normal(m2, (0.5 * v2).exp())
    )
    assert torch.allclose(gaussian_kl(m1, v1, m2, v2), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [0.003, 0.02, 0.5])
def test_probabilities_of_the_256_levels_sum_to_one(scale):
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mean = torch.full_like(levels, 0.3)
    log_scale = torch.full_like(levels, scale).log()
    total = discretized_gaussian_log_likelihood(levels, mean, log_scale).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-6)
