"""The joint transformer against the reference tensors `dit_v2` and `dit_v2_patch2_sigma`."""

import json

import pytest
import torch
from published_mm_ldm import from_published_state, to_published_state
from safetensors.torch import load_file

from soundreel.systems.mm_ldm.generator import GeneratorConfig, JointTransformer
from soundreel.types import AV, LatentSpec

CASES = ("joint", "audio_to_video", "video_to_audio", "null_context")


def read_reference(folder, name):
    if not (folder / f"{name}.safetensors").is_file():
        pytest.skip(f"{name}.safetensors is not in {folder}")
    return json.loads((folder / f"{name}.json").read_text()), load_file(
        folder / f"{name}.safetensors"
    )


def config_from_sidecar(c, *, num_context_tokens=77):
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


@pytest.fixture(params=["dit_v2", "dit_v2_patch2_sigma"])
def reference(request, parity_folder):
    sidecar, tensors = read_reference(parity_folder("mm_ldm"), request.param)
    network = JointTransformer(config_from_sidecar(sidecar["config"])).eval()
    network.load_state_dict(from_published_state(part(tensors, "param/")))
    return sidecar, tensors, network


def condition_of(case, sidecar, tensors):
    def one(modality):
        given = sidecar["cases"][case][f"cond_{modality}"] == "given"
        return tensors[f"in/cond_{modality}"] if given else None

    context = tensors["in/context"]
    if sidecar["cases"][case]["context"] != "given":
        context = torch.zeros_like(context)
    return AV(one("video"), one("audio")), context


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_reference(reference, case):
    sidecar, tensors, network = reference
    condition, context = condition_of(case, sidecar, tensors)
    xt = AV(tensors["in/x_video"], tensors["in/x_audio"])
    output = network(xt, tensors["in/t"], context, condition)
    assert_close(output["video"], tensors[f"out/{case}/video"])
    assert_close(output["audio"], tensors[f"out/{case}/audio"])


@torch.no_grad()
def test_tokens_time_embedding_and_every_block_equal_the_reference(reference):
    sidecar, tensors, network = reference
    condition, context = condition_of("audio_to_video", sidecar, tensors)
    xt = AV(tensors["in/x_video"], tensors["in/x_audio"])
    time = network.embed_time(tensors["in/t"])
    assert_close(time, tensors["mid/t_emb"])
    x = network.embed_tokens(xt, condition, context)
    assert_close(x, tensors["mid/tokens_in"])
    for i, block in enumerate(network.blocks):
        x = block(x, time)
        assert_close(x, tensors[f"mid/block{i}"])


def test_fixed_position_tables_are_the_published_ones(reference):
    sidecar, tensors, _ = reference
    fresh = JointTransformer(config_from_sidecar(sidecar["config"]))
    for name in ("video", "audio"):
        assert_close(fresh.embed[name].position_table, tensors[f"param/pos_embed_{name}"], 1e-6)


def test_names_map_both_ways_without_loss(reference):
    _, tensors, network = reference
    published = part(tensors, "param/")
    back = to_published_state(network.state_dict())
    assert back.keys() == published.keys()
    assert all(torch.equal(back[key], published[key]) for key in back)


@pytest.mark.parametrize("name", ["dit_v2", "dit_long_generator"])
def test_full_size_has_the_published_keys_shapes_and_parameter_count(parity_folder, name):
    path = parity_folder("mm_ldm") / "full_config_keys" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    sidecar = json.loads(path.read_text())
    with torch.device("meta"):
        network = JointTransformer(config_from_sidecar(sidecar["config"]))
    state = to_published_state(network.state_dict())
    assert {k: list(v.shape) for k, v in state.items()} == sidecar["shapes"]
    assert sum(v.numel() for v in state.values()) == sidecar["parameters"]
    assert sum(p.numel() for p in network.parameters()) == sidecar["trainable"]
