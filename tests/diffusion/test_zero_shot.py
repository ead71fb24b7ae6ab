import pytest
import torch

from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.noise import PerSampleNoise, ReplayNoise
from soundreel.diffusion.process import noise_level, per_sample, to_epsilon
from soundreel.diffusion.samplers import sample
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.diffusion.zero_shot import (
    gradient_guide,
    official_weight,
    replacement_guide,
    zero_shot_ddpm,
)
from soundreel.types import AV

SCHEDULE = linear_schedule()


def denoiser(xt, timestep):
    """Both modalities lean towards the mean of the other."""
    level = noise_level(SCHEDULE, timestep)
    mean_v, mean_a = (x.flatten(1).mean(1) for x in (xt.video, xt.audio))
    x0 = AV(
        0.6 * torch.tanh(xt.video) + 0.5 * per_sample(torch.sin(mean_a), xt.video),
        0.6 * torch.tanh(xt.audio) + 0.5 * per_sample(torch.sin(mean_v), xt.audio),
    )
    return to_epsilon(x0, xt, level, "x0")


def template(batch):
    return AV(torch.empty(batch, 2, 3, 4, 4), torch.empty(batch, 1, 32))


def clean(name, batch):
    seeds = range(50, 50 + batch)
    return AV(None, None).replace(
        name, PerSampleNoise(list(seeds))(template(batch))[name].clamp(-1, 1)
    )


def guided(sampler, name, seeds, given, weight):
    noise = PerSampleNoise(seeds)
    start = noise(template(len(seeds)))
    if sampler == "zero_shot_ddpm":
        return zero_shot_ddpm(
            denoiser, start, respace(SCHEDULE, 6), given=given, noise=noise, weight=weight
        )
    guide = gradient_guide(given, start, weight=weight)
    if weight == 0:
        guide = replacement_guide(given, start)
    return sample(denoiser, start, SCHEDULE, noise=noise, sampler=sampler, num_steps=6, guide=guide)


ALL = ["zero_shot_ddpm", "dpm-solver++", "dpm-solver", "ddim", "ddpm"]


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize("name", ["video", "audio"])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_seed_gives_the_same_clip_alone_and_among_four(sampler, name, weight):
    given = clean(name, 4)
    together = guided(sampler, name, [1, 2, 3, 4], given, weight)
    alone = guided(sampler, name, [3], given.rows(slice(2, 3)), weight)
    for modality in together.present:
        assert (alone[modality][0] - together[modality][2]).abs().max() <= 1e-5


@pytest.mark.parametrize("sampler", [n for n in ALL if n != "zero_shot_ddpm"])
@pytest.mark.parametrize("name", ["video", "audio"])
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_given_modality_comes_out_as_it_went_in(sampler, name, weight):
    given = clean(name, 2)
    got = guided(sampler, name, [1, 2], given, weight)
    # The solvers stop at the noise level of the first step, sigma 0.01.
    assert (got[name] - given[name]).abs().max() <= 0.05
    other = "audio" if name == "video" else "video"
    assert bool(got[other].isfinite().all())
    assert not got[other].requires_grad


@pytest.mark.parametrize("name", ["video", "audio"])
def test_the_network_is_shown_the_given_signal_at_every_noise_level(name):
    given, noise, seen = clean(name, 1), PerSampleNoise([9]), []
    start = noise(template(1))

    def watching(xt, timestep):
        level = noise_level(SCHEDULE, timestep)
        wanted = per_sample(level.alpha, given[name]) * given[name]
        wanted = wanted + per_sample(level.sigma, given[name]) * start[name]
        # Between two steps the network is given the nearer one.
        seen.append(float((xt[name] - wanted).abs().max()))
        return denoiser(xt, timestep)

    guide = replacement_guide(given, start)
    sample(watching, start, SCHEDULE, noise=noise, guide=guide, sampler="ddim", num_steps=10)
    assert max(seen) <= 1e-6
    seen.clear()
    sample(watching, start, SCHEDULE, noise=noise, guide=guide, num_steps=20)
    assert max(seen) <= 0.02


def test_the_gradient_step_is_the_one_of_the_formula():
    """For x0_video = k x_audio the gradient is known."""
    k, weight = 0.3, 1.7
    given = AV(PerSampleNoise([5])(AV(torch.empty(1, 16), None)).video, None)
    start = PerSampleNoise([6])(AV(torch.empty(1, 16), torch.empty(1, 16)))
    timestep = torch.tensor([400])
    level = noise_level(SCHEDULE, timestep)

    def estimate(xt):
        return Prediction(AV(k * xt.audio, 0.5 * xt.audio))

    got = gradient_guide(given, start, weight=weight)(estimate, start, level).mean_output
    gradient = 2 * k * (k * start.audio - given.video)
    wanted = 0.5 * start.audio - weight / 2 * float(level.alpha[0]) * gradient
    assert torch.allclose(got.audio, wanted, atol=1e-6)
    assert torch.equal(got.video, given.video)


@pytest.mark.parametrize("name", ["video", "audio"])
def test_guidance_brings_the_networks_estimate_closer_to_what_is_given(name):
    """The error of the network's own idea of the given modality, late in the run."""
    given = clean(name, 4) * 0.3
    errors = {}
    for weight in (0.0, 2.0):
        found = []

        def watching(xt, timestep, found=found):
            output = denoiser(xt, timestep)
            level = noise_level(SCHEDULE, timestep)
            noisy, eps = xt[name].detach(), output[name].detach()
            x0 = (noisy - per_sample(level.sigma, noisy) * eps) / per_sample(level.alpha, noisy)
            found.append(float((x0 - given[name]).square().mean()))
            return output

        noise = PerSampleNoise([1, 2, 3, 4])
        start = noise(template(4))
        guide = gradient_guide(given, start, weight=weight)
        sample(watching, start, SCHEDULE, noise=noise, sampler="ddim", guide=guide)
        errors[weight] = found[-1]
    assert errors[2.0] < 0.999 * errors[0.0]


def test_published_scales_convert_to_their_known_weights():
    """Scale 3 in half precision, as in the two published scripts."""
    sound_given = official_weight(3.0, batch_size=1, num_elements=25_600, half_precision=True)
    video_given = official_weight(
        3.0, batch_size=2, num_elements=16 * 3 * 64 * 64, half_precision=True
    )
    assert sound_given == pytest.approx(122.88)
    assert video_given == pytest.approx(8.0)
    plain = official_weight(3.0, batch_size=2, num_elements=10, half_precision=False)
    assert plain == pytest.approx(0.15)


def test_exactly_one_modality_must_be_given():
    start = PerSampleNoise([0])(template(1))
    for given in (start, AV(None, None)):
        with pytest.raises(ValueError, match="give exactly one modality"):
            replacement_guide(given, start)
        with pytest.raises(ValueError, match="give exactly one modality"):
            zero_shot_ddpm(
                denoiser, start, respace(SCHEDULE, 5), given=given, noise=ReplayNoise([])
            )
