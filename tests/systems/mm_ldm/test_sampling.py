"""What is given; single passes are compared with reference tensors in the parity tests."""

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


def test_what_is_given_comes_back_and_is_followed(generator):
    one, two = (AV(None, level * torch.ones(2, *LATENTS.audio_shape)) for level in (1.0, -1.0))
    steps = []
    made = sampled(generator, condition=one, callback=lambda *_: steps.append(1))
    assert torch.equal(made["audio"], one["audio"])
    assert len(steps) == CONFIG.num_steps
    other = sampled(generator, condition=two)
    assert not torch.allclose(made["video"], other["video"], atol=1e-2)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="num_steps must be positive, got 0"):
        SamplingConfig(num_steps=0)
