"""The generator for long video against the reference tensors `dit_long`."""

import json

import pytest
import torch
from published_mm_ldm import (
    from_published_state,
    history_encoder_from_published,
    history_encoder_to_published,
)
from safetensors.torch import load_file

from soundreel.diffusion.schedules import respace, scaled_linear_schedule
from soundreel.systems.mm_ldm.generator import GeneratorConfig
from soundreel.systems.mm_ldm.history_encoder import (
    HistoryEncoder,
    LongGenerator,
    LongGeneratorConfig,
)
from soundreel.systems.mm_ldm.sampling import SamplingConfig, sample_latents
from soundreel.types import AV, LatentSpec


def generator_config(c, num_context_tokens=77):
    return GeneratorConfig(
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
        context_dim=c.get("context_dim", 768),
        num_context_tokens=num_context_tokens,
        learned_variance=c["learn_sigma"],
    )


def part(tensors, prefix):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def assert_close(got, expected, mark=1e-5):
    scale = max(1.0, float(expected.abs().max()))
    assert got.shape == expected.shape
    assert float((got - expected).abs().max()) <= mark * scale


@pytest.fixture(scope="module")
def reference(parity_folder):
    folder = parity_folder("mm_ldm")
    if not (folder / "dit_long.safetensors").is_file():
        pytest.skip(f"dit_long.safetensors is not in {folder}")
    sidecar = json.loads((folder / "dit_long.json").read_text())
    return sidecar, load_file(folder / "dit_long.safetensors")


@pytest.fixture(scope="module")
def network(reference):
    sidecar, tensors = reference
    config = sidecar["config"]
    long = LongGenerator(
        LongGeneratorConfig(
            generator=generator_config(config["generator"], tensors["in/prompt"].shape[0]),
            history_depth=config["condition_encoder"]["depth"],
        )
    )
    long.generator.transformer.load_state_dict(
        from_published_state(part(tensors, "param_generator/"))
    )
    long.generator.prompt.data.copy_(tensors["in/prompt"])
    long.history_encoder.load_state_dict(
        history_encoder_from_published(part(tensors, "param_condition_encoder/"))
    )
    long.video_to_context.load_state_dict(part(tensors, "param_prev_video_to_context/"))
    long.audio_to_context.load_state_dict(part(tensors, "param_prev_audio_to_context/"))
    return long.eval()


def pair(tensors, name):
    return AV(tensors[f"in/{name}_video"], tensors[f"in/{name}_audio"])


def previous_of(case, sidecar, tensors):
    previous = pair(tensors, "prev")
    for name in ("video", "audio"):
        if sidecar["cases"][case][f"prev_{name}"] != "given":
            previous = previous.replace(name, torch.zeros_like(previous[name]))
    return previous


@torch.no_grad()
def test_outputs_of_all_four_tasks_equal_the_reference(reference, network):
    sidecar, tensors = reference
    for case in sidecar["cases"]:
        output = network(
            pair(tensors, "x"), tensors["in/t"], previous=previous_of(case, sidecar, tensors)
        ).mean_output
        assert_close(output["video"], tensors[f"out/{case}/video"])
        assert_close(output["audio"], tensors[f"out/{case}/audio"])


@torch.no_grad()
def test_taps_equal_the_reference(reference, network):
    sidecar, tensors = reference
    previous = previous_of("prediction", sidecar, tensors)
    prompt = network.generator.prompt.expand(previous.batch_size, -1, -1)
    context = torch.cat([prompt, network.history_tokens(previous)], dim=1)
    taps = network.history_encoder(pair(tensors, "x"), previous, tensors["in/t"], context)
    expected = tensors["mid/prediction/taps"]
    stacked = torch.stack(taps, dim=0 if expected.shape[0] == len(taps) else 1)
    assert_close(stacked, expected)


@torch.no_grad()
def test_without_taps_it_is_the_plain_generator(reference, network):
    _, tensors = reference
    output = network.generator(pair(tensors, "x"), tensors["in/t"]).mean_output
    assert_close(output["video"], tensors["out/no_taps_prompt_only/video"])
    assert_close(output["audio"], tensors["out/no_taps_prompt_only/audio"])


def test_names_map_both_ways_without_loss(reference, network):
    _, tensors = reference
    published = {
        key: value
        for key, value in part(tensors, "param_condition_encoder/").items()
        if not key.startswith("final_layer_")
    }
    back = history_encoder_to_published(network.history_encoder.state_dict())
    assert back.keys() == published.keys()
    assert all(torch.equal(back[key], published[key]) for key in back)


def test_full_size_has_the_published_keys_and_shapes_but_for_the_unused_heads(parity_folder):
    path = parity_folder("mm_ldm") / "full_config_keys" / "dit_long_condition_encoder.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    sidecar = json.loads(path.read_text())
    published = sidecar["config"]
    latents = {
        name: published[f"{name}_in_channels"] // 2 for name in ("video", "audio")
    }  # previous and noisy side by side
    config = generator_config(
        {**published, **{f"{name}_in_channels": count for name, count in latents.items()}}
    )
    with torch.device("meta"):
        encoder = HistoryEncoder(config)
    state = history_encoder_to_published(encoder.state_dict())
    used = {k: v for k, v in sidecar["shapes"].items() if not k.startswith("final_layer_")}
    assert {k: list(v.shape) for k, v in state.items()} == used
    unused = sum(torch.Size(v).numel() for k, v in sidecar["shapes"].items() if k not in used)
    assert sum(v.numel() for v in state.values()) == sidecar["parameters"] - unused


def test_a_trajectory_of_each_task_is_that_of_the_plain_sum_of_its_branches(reference, network):
    """Guided DDIM by hand: null has neither prompt nor history, and each task its own history."""
    sidecar, tensors = reference
    schedule = scaled_linear_schedule(1000)
    steps = respace(schedule, "compvis4")
    xt = pair(tensors, "x")
    for case in sidecar["cases"]:
        previous = previous_of(case, sidecar, tensors)
        config = SamplingConfig(num_steps=4, video_guidance_scale=2.0, audio_guidance_scale=3.0)
        got = sample_latents(network, xt, schedule, config, previous=previous)
        expected = xt
        for index in reversed(range(len(steps))):
            t = steps.timestep_map[torch.full((xt.batch_size,), index)]
            with torch.no_grad():
                kept = network(expected, t, previous=previous).mean_output
                null = network(
                    expected,
                    t,
                    previous=previous.map(torch.zeros_like),
                    context_kept=torch.zeros_like(t, dtype=torch.bool),
                ).mean_output
            for name, scale in (("video", 2.0), ("audio", 3.0)):
                epsilon = null[name] + scale * (kept[name] - null[name])
                here, before = steps.alpha_bar[index], steps.alpha_bar_prev[index]
                x0 = (expected[name] - (1 - here).sqrt() * epsilon) / here.sqrt()
                moved = before.sqrt() * x0 + (1 - before).sqrt() * epsilon
                expected = expected.replace(name, moved.float())
        assert_close(got["video"], expected["video"], 1e-3)
        assert_close(got["audio"], expected["audio"], 1e-3)
