import pytest
import torch

from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.guidance import classifier_free, guided_output
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import per_sample
from soundreel.types import AV

XT = PerSampleNoise([0, 1])(AV(torch.empty(2, 2, 3, 4, 4), torch.empty(2, 1, 32)))
TIMESTEP = torch.tensor([5, 900])


def network(factors, calls=None):
    """A network whose answers with and without condition are two multiples of its input."""

    def answer(xt, timestep, kept):
        if calls is not None:
            calls.append((len(timestep), kept.tolist()))
        assert torch.equal(timestep, TIMESTEP.repeat(len(timestep) // 2))
        factor = torch.where(kept, *(torch.tensor(float(f)) for f in factors))
        scaled = xt.map(lambda x: per_sample(factor, x) * x)
        return Prediction(scaled, scaled * 2)

    return answer


def test_each_modality_has_its_own_scale():
    denoiser = classifier_free(network((3, 1)), video_scale=2.5, audio_scale=0.0)
    got = denoiser(XT, TIMESTEP).mean_output
    assert torch.allclose(got.video, XT.video * (1 + 2.5 * 2))
    assert torch.equal(got.audio, XT.audio)


@pytest.mark.parametrize(("scale", "kept"), [(1.0, 2 * [True]), (3.0, 2 * [True] + 2 * [False])])
def test_both_branches_are_one_batch_and_scale_one_has_no_null_branch(scale, kept):
    calls = []
    classifier_free(network((3, 1), calls), video_scale=scale, audio_scale=scale)(XT, TIMESTEP)
    assert calls == [(len(kept), kept)]


def test_the_variance_is_the_conditional_one():
    denoiser = classifier_free(network((1, 7)), video_scale=3.0, audio_scale=3.0)
    assert torch.equal(denoiser(XT, TIMESTEP).variance_output.audio, XT.audio * 2)


def test_single_modalities_are_guided_too():
    images = AV(XT.video, None)
    got = guided_output(images * 2, images, video_scale=4.0, audio_scale=9.0)
    assert got.audio is None
    assert got.video.flatten().tolist() == pytest.approx((images.video * 5).flatten().tolist())
