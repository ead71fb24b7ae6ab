"""What the long-video generator adds to the joint one."""

import pytest
import torch

from soundreel.systems.mm_ldm.generator import GeneratorConfig
from soundreel.systems.mm_ldm.history_encoder import LongGenerator, LongGeneratorConfig
from soundreel.types import AV, LatentSpec

LATENTS = LatentSpec(video_channels=3, video_size=4, audio_channels=2, audio_size=2)
CONFIG = LongGeneratorConfig(
    generator=GeneratorConfig(
        latents=LATENTS, width=32, depth=3, num_heads=4, context_dim=8, num_context_tokens=2
    ),
    history_depth=2,
)


def make(*, awake):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LongGenerator(CONFIG)
        if awake:
            for parameter in network.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()


def latents(seed):
    generator = torch.Generator().manual_seed(seed)
    return AV(
        torch.randn(2, *LATENTS.video_shape, generator=generator),
        torch.randn(2, *LATENTS.audio_shape, generator=generator),
    )


@torch.no_grad()
def test_fresh_taps_are_silent():
    network, xt, previous = make(awake=False), latents(0), latents(1)
    timestep = torch.tensor([3, 900])
    context = network.history_tokens(previous)
    assert not any(
        bool(tap.any()) for tap in network.history_encoder(xt, previous, timestep, context)
    )


@torch.no_grad()
@pytest.mark.parametrize("modality", ["video", "audio"])
def test_the_previous_latent_of_either_modality_changes_both_outputs(modality):
    network, xt, timestep = make(awake=True), latents(0), torch.tensor([3, 900])
    nothing = xt.map(torch.zeros_like)
    base = network(xt, timestep, previous=nothing).mean_output
    known = nothing.replace(modality, latents(1)[modality])
    output = network(xt, timestep, previous=known).mean_output
    for name in ("video", "audio"):
        assert not torch.allclose(output[name], base[name], atol=1e-4)


def test_every_tap_gets_a_gradient_at_the_start():
    network = make(awake=True)
    for tap in network.history_encoder.taps:
        torch.nn.init.zeros_(tap.weight)
    output = network(latents(0), torch.tensor([3, 900]), previous=latents(1)).mean_output
    sum(x.square().sum() for x in output.tensors).backward()
    assert all(bool(tap.weight.grad.any()) for tap in network.history_encoder.taps)


def test_impossible_depths_are_refused():
    with pytest.raises(ValueError, match="history_depth must be between 1"):
        LongGeneratorConfig(generator=CONFIG.generator, history_depth=4)
