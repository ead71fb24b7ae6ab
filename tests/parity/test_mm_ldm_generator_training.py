"""The generator's loss and its random conditions against `generator_training`."""

import json

import pytest
import torch
from published_mm_ldm import from_published_state
from safetensors.torch import load_file

from soundreel.diffusion.process import q_sample
from soundreel.diffusion.schedules import scaled_linear_schedule
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.generator_loss import (
    GeneratorDraws,
    GeneratorObjective,
    condition_masks,
    conditional_loss,
)
from soundreel.types import AV, LatentSpec


@pytest.fixture(scope="module")
def reference(parity_folder):
    folder = parity_folder("mm_ldm")
    if not (folder / "generator_training.safetensors").is_file():
        pytest.skip(f"generator_training.safetensors is not in {folder}")
    sidecar = json.loads((folder / "generator_training.json").read_text())
    return sidecar, load_file(folder / "generator_training.safetensors")


@pytest.fixture(scope="module")
def network(reference):
    sidecar, tensors = reference
    c = sidecar["config"]
    generator = Generator(
        GeneratorConfig(
            latents=LatentSpec(
                video_channels=c["video_in_channels"],
                video_size=c["video_input_size"],
                audio_channels=c["audio_in_channels"],
                audio_size=c["audio_input_size"],
            ),
            video_patch_size=c["video_patch_size"],
            audio_patch_size=c["audio_patch_size"],
            width=c["hidden_size"],
            depth=c["depth"],
            num_heads=c["num_heads"],
            mlp_ratio=float(c["mlp_ratio"]),
            context_dim=c["context_dim"],
            num_context_tokens=tensors["in/prompt"].shape[0],
            learned_variance=c["learn_sigma"],
        )
    )
    weights = {k.removeprefix("param/"): v for k, v in tensors.items() if k.startswith("param/")}
    generator.transformer.load_state_dict(from_published_state(weights))
    generator.prompt.data.copy_(tensors["in/prompt"])
    return generator.eval()


def assert_close(got, expected, mark=1e-5):
    scale = max(1.0, float(expected.abs().max()))
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= mark * scale


def pair(tensors, name):
    return AV(tensors[f"{name}_video"], tensors[f"{name}_audio"])


def test_noisy_latents_equal_the_reference(reference):
    _, tensors = reference
    got = q_sample(
        pair(tensors, "in/latent"),
        tensors["in/t"],
        pair(tensors, "in/noise"),
        scaled_linear_schedule(),
    )
    assert_close(got["video"], tensors["out/noisy_video"])
    assert_close(got["audio"], tensors["out/noisy_audio"])


@torch.no_grad()
def test_predicted_noise_equals_the_reference(reference, network):
    _, tensors = reference
    output = network(
        pair(tensors, "out/noisy"), tensors["in/t"], condition=pair(tensors, "in/cond")
    ).mean_output
    assert_close(output["video"], tensors["out/eps_video"])
    assert_close(output["audio"], tensors["out/eps_audio"])


@torch.no_grad()
def test_loss_equals_the_reference(reference, network):
    _, tensors = reference
    batch = len(tensors["in/t"])
    draws = GeneratorDraws(tensors["in/t"], torch.ones(batch, 3), pair(tensors, "in/noise"))
    losses = conditional_loss(
        network,
        pair(tensors, "in/latent"),
        draws,
        scaled_linear_schedule(),
        condition=pair(tensors, "in/cond"),
        context_kept=torch.ones(batch, dtype=torch.bool),
    )
    assert_close(losses.terms["mse_video"].mean(), tensors["out/mse_video"], 2e-5)
    assert_close(losses.terms["mse_audio"].mean(), tensors["out/mse_audio"], 2e-5)
    assert_close(losses.loss.mean(), tensors["out/total"], 2e-5)


def test_condition_masks_equal_the_recorded_choices(reference):
    _, tensors = reference
    uniforms = torch.stack([tensors[f"in/masks/r_{n}"] for n in ("context", "audio", "video")], 1)
    masks = condition_masks(uniforms, GeneratorObjective())
    for got, name in (
        (masks.context_kept, "context_kept"),
        (masks.audio_given, "audio_condition_on"),
        (masks.video_given, "video_condition_on"),
    ):
        assert torch.equal(got, tensors[f"out/masks/{name}"].bool())
