"""Order of the passes; single passes are compared with reference tensors in the parity tests."""

from dataclasses import replace

import pytest
import torch

from soundreel.diffusion.config import DiffusionConfig
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.sampling import SamplingConfig, sample_latents
from soundreel.types import AV, LatentSpec

LATENTS = LatentSpec(video_channels=3, video_size=4, audio_channels=2, audio_size=2)
CONFIG = SamplingConfig(num_steps=4, video_guidance_scale=2.0, audio_guidance_scale=1.0)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    network = Generator(
        GeneratorConfig(
            latents=LATENTS, width=32, depth=1, num_heads=4, context_dim=8, num_context_tokens=3
        )
    )
    for parameter in network.parameters():  # layers that start at zero would hide every path
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


def sampled(generator, config=CONFIG, condition=None, callback=None):
    like = AV(torch.empty(2, *LATENTS.video_shape), torch.empty(2, *LATENTS.audio_shape))
    return sample_latents(
        generator,
        PerSampleNoise([3, 4])(like),
        DiffusionConfig().build(),
        config,
        condition=condition,
        callback=callback,
    )


@pytest.mark.parametrize(("again", "kept"), [("video", "audio"), ("audio", "video")])
def test_a_second_pass_samples_one_modality_for_the_finished_other(generator, again, kept):
    steps = []
    once = sampled(generator)
    twice = sampled(
        generator, replace(CONFIG, second_pass=again), callback=lambda *_: steps.append(1)
    )
    assert torch.equal(twice[kept], once[kept])
    alone = sampled(generator, condition=once.replace(again, None))
    assert torch.equal(twice[again], alone[again])
    assert not torch.allclose(twice[again], once[again], atol=1e-2)
    assert len(steps) == 2 * CONFIG.num_steps


def test_what_is_given_is_followed_in_one_pass(generator):
    given = AV(None, torch.ones(2, *LATENTS.audio_shape))
    second = replace(CONFIG, second_pass="video")
    once, twice = (sampled(generator, config, given) for config in (CONFIG, second))
    assert all(torch.equal(a, b) for a, b in zip(once.tensors, twice.tensors, strict=True))
    assert torch.equal(twice["audio"], given["audio"])


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="num_steps must be positive, got 0"):
        SamplingConfig(num_steps=0)
