import pytest
import torch

from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.guidance import classifier_free, guided_output
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.types import AV

XT = PerSampleNoise([0, 1])(AV(torch.empty(2, 2, 3, 4, 4), torch.empty(2, 1, 32)))
TIMESTEP = torch.tensor([5, 900])


def forbidden(xt, timestep):
    raise AssertionError("must not be called")


def test_each_modality_has_its_own_scale():
    denoiser = classifier_free(
        lambda xt, t: xt * 3, lambda xt, t: xt, video_scale=2.5, audio_scale=0.0
    )
    got = denoiser(XT, TIMESTEP).mean_output
    assert torch.allclose(got.video, XT.video * (1 + 2.5 * 2))
    assert torch.equal(got.audio, XT.audio)


def test_scale_one_costs_one_evaluation():
    denoiser = classifier_free(lambda xt, t: xt, forbidden, video_scale=1.0, audio_scale=1.0)
    assert denoiser(XT, TIMESTEP) is XT


def test_the_variance_is_the_conditional_one():
    denoiser = classifier_free(
        lambda xt, t: Prediction(xt, xt * 2),
        lambda xt, t: Prediction(xt, xt * 7),
        video_scale=3.0,
        audio_scale=3.0,
    )
    assert torch.equal(denoiser(XT, TIMESTEP).variance_output.audio, XT.audio * 2)


def test_single_modalities_are_guided_too():
    images = AV(XT.video, None)
    got = guided_output(images * 2, images, video_scale=4.0, audio_scale=9.0)
    assert got.audio is None
    assert got.video.flatten().tolist() == pytest.approx((images.video * 5).flatten().tolist())
