"""The Coupled U-Net against outputs and inner values of the original, at tiny and full size."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundreel.systems.mm_diffusion.blocks import (
    CrossModalAttention,
    ResidualBlock,
    ResidualBlockConfig,
    cyclic_windows,
    sinusoidal_embedding,
)
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.official_keys import from_official, to_official
from soundreel.types import AV

NETWORK_MARK = 5e-5


def relative_error(got, expected):
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())


def tensors(parity_folder, name):
    path = parity_folder("mm_diffusion") / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return load_file(path)


def sidecar(parity_folder, name):
    path = parity_folder("mm_diffusion") / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {path.parent}")
    return json.loads(path.read_text())


def reference_shifts(facts):
    blocks = facts["shift_per_cross_block_in_call_order"].values()
    return [block["shift"] for block in blocks if block["draws"]]


@pytest.mark.parametrize("name", ["unet_main", "unet_variant"])
@pytest.mark.parametrize("kind", ["zero_shift", "shifted"])
@torch.no_grad()
def test_network_output_equals_the_original(parity_folder, reference_coupled_unet, name, kind):
    network = reference_coupled_unet(name)
    io = tensors(parity_folder, f"{name}.io")
    shifts = reference_shifts(sidecar(parity_folder, name)) if kind == "shifted" else None
    output = network(AV(io["in.video"], io["in.audio"]), io["in.timesteps"], shifts)
    for modality in ("video", "audio"):
        error = relative_error(output[modality], io[f"out_{kind}.{modality}"])
        assert error <= NETWORK_MARK, f"{modality} off by {error:.2e}"


@pytest.mark.parametrize("name", ["unet_main", "unet_variant"])
def test_shift_ranges_equal_those_of_the_original(parity_folder, reference_coupled_unet, name):
    blocks = sidecar(parity_folder, name)["shift_per_cross_block_in_call_order"].values()
    expected = [block["range"][1] for block in blocks if block["draws"]]
    assert reference_coupled_unet(name).shift_ranges == expected


@pytest.mark.parametrize("name", ["unet_main", "unet_variant"])
@torch.no_grad()
def test_every_top_level_block_equals_the_original(parity_folder, reference_coupled_unet, name):
    network = reference_coupled_unet(name)
    io = tensors(parity_folder, f"{name}.io")
    seen = {}

    def record(block_name):
        def hook(module, inputs, output):
            seen[f"{block_name}.video"] = output["video"].permute(0, 1, 4, 2, 3)
            seen[f"{block_name}.audio"] = output["audio"].mT

        return hook

    for group in ("input_blocks", "output_blocks"):
        for index, entry in enumerate(getattr(network, group)):
            entry[-1].register_forward_hook(record(f"{group}.{index}"))
    network.middle_blocks[-1].register_forward_hook(record("middle_blocks"))
    network(AV(io["in.video"], io["in.audio"]), io["in.timesteps"])

    probes = {key.removeprefix("probe."): v for key, v in io.items() if key.startswith("probe.")}
    assert probes
    assert probes.keys() == seen.keys()
    for key, expected in probes.items():
        flat = seen[key].flatten()
        index = np.round(np.linspace(0, len(flat) - 1, len(expected))).astype(int)
        picked = flat[torch.from_numpy(index)]
        error = relative_error(picked, expected)
        assert error <= NETWORK_MARK, f"{key} off by {error:.2e}"


@pytest.mark.parametrize("name", ["unet_main", "unet_variant"])
def test_official_names_and_shapes_are_restored_exactly(
    parity_folder, reference_coupled_unet, name
):
    official = tensors(parity_folder, f"{name}.weights")
    back = to_official(reference_coupled_unet(name).state_dict())
    assert back.keys() == official.keys()
    assert all(torch.equal(back[key], value) for key, value in official.items())


def cases(parity_folder, kind):
    facts = sidecar(parity_folder, "unit_blocks")
    found = [name for name in facts if name.startswith(f"{kind}.")]
    assert found
    return [(name, facts[name]) for name in found]


def block_state(values, name, marker):
    """A single block's official weights under our names, by giving them a place in a network."""
    prefix = f"{name}/w/"
    place = "output_blocks.0.0."
    weights = {place + k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    assert any(marker in key for key in weights)
    return {key.removeprefix(place): v for key, v in from_official(weights).items()}


@torch.no_grad()
def test_residual_blocks_equal_the_original(parity_folder):
    values = tensors(parity_folder, "unit_blocks")
    for name, facts in cases(parity_folder, "resblock"):
        block = ResidualBlock(
            ResidualBlockConfig(
                in_channels=facts["channels"],
                out_channels=facts.get("out_channels", facts["channels"]),
                embedding_dim=facts["emb_channels"],
                dilation=facts["audio_dilation"],
                resample="down" if facts.get("down") else "up" if facts.get("up") else None,
                scale_shift_norm=facts["use_scale_shift_norm"],
                video_attention=facts.get("video_attention", False),
                audio_attention=facts.get("audio_attention", False),
                num_heads=facts.get("num_heads", 1),
            )
        ).eval()
        block.load_state_dict(block_state(values, name, "emb_layers"))
        x = AV(
            values[f"{name}/in/video"].permute(0, 1, 3, 4, 2).contiguous(),
            values[f"{name}/in/audio"].mT.contiguous(),
        )
        y = block(x, values[f"{name}/in/emb"])
        got = AV(y["video"].permute(0, 1, 4, 2, 3), y["audio"].mT)
        for modality in ("video", "audio"):
            error = relative_error(got[modality], values[f"{name}/out/{modality}"])
            assert error <= NETWORK_MARK, f"{name} {modality} off by {error:.2e}"


@torch.no_grad()
def test_cross_modal_attention_equals_the_original(parity_folder):
    values = tensors(parity_folder, "unit_blocks")
    for name, facts in cases(parity_folder, "cross"):
        heads = facts["channels"] // facts["head_channels"]
        block = CrossModalAttention(facts["channels"], facts["window"], heads, 32).eval()
        block.load_state_dict(block_state(values, name, "v_qkv"))
        x = AV(
            values[f"{name}/in/video"].permute(0, 1, 3, 4, 2).contiguous(),
            values[f"{name}/in/audio"].mT.contiguous(),
        )
        y = block(x, facts["shift"])
        got = AV(y["video"].permute(0, 1, 4, 2, 3), y["audio"].mT)
        for modality in ("video", "audio"):
            error = relative_error(got[modality], values[f"{name}/out/{modality}"])
            assert error <= NETWORK_MARK, f"{name} {modality} off by {error:.2e}"


def test_timestep_embeddings_equal_the_original(parity_folder):
    values = tensors(parity_folder, "unit_blocks")
    dims = [key for key in values if key.startswith("timestep_embedding/dim")]
    assert dims
    for key in dims:
        got = sinusoidal_embedding(values["timestep_embedding/t"], values[key].shape[1])
        assert relative_error(got, values[key]) <= NETWORK_MARK


def expand(ranges):
    return [index for first, last in ranges for index in range(first, last + 1)]


def test_windows_hold_the_samples_and_frames_of_the_original_in_order(parity_folder):
    listed = sidecar(parity_folder, "cross_window_rule")["cases"]
    assert listed
    for case in listed:
        f, samples, window, shift = (case[k] for k in ("frames", "audio_len", "window", "shift"))
        n = case["height"] * case["width"]
        sample = torch.arange(samples, dtype=torch.float32)[None, :, None]
        token = torch.arange(f * n, dtype=torch.float32)[None, :, None]
        heard = cyclic_windows(sample, f, window, shift)[0, :, :, 0].long()
        seen = cyclic_windows(token, f, window, shift)[0, :, :, 0].long()
        for row in case["rows"]:
            i = row["frame"]
            assert heard[i].tolist() == expand(row["audio_keys_for_video_queries"])
            assert seen[i].tolist() == expand(row["video_key_tokens_for_audio_queries"])


def formula(count, j, salt):
    """Pseudo-random values in [-1, 1) from a 32-bit hash of position, tensor number and salt."""
    i = np.arange(count, dtype=np.uint64)
    x = (i * 2654435761 + (j + 1) * 2246822519 + salt * 3266489917) & 0xFFFFFFFF
    x ^= x >> 15
    x = (x * 2246822519) & 0xFFFFFFFF
    x ^= x >> 13
    x = (x * 3266489917) & 0xFFFFFFFF
    x ^= x >> 16
    return x / 2**32 * 2 - 1


def formula_state(shapes, salt):
    state = {}
    for j, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        u = formula(math.prod(shape), j, salt)
        if len(shape) > 1:
            u = u * math.sqrt(1.92 * shape[0] / math.prod(shape))
        else:
            u = 1 + 0.2 * u if name.endswith("weight") else 0.1 * u
        state[name] = torch.from_numpy(u).float().reshape(tuple(shape))
    return state


@pytest.mark.slow
@torch.no_grad()
def test_full_size_network_equals_the_original(parity_folder):
    facts = sidecar(parity_folder, "full_base_formula")
    io = tensors(parity_folder, "full_base_formula")
    shapes = sidecar(parity_folder, "state_dict_landscape_base_64x64")["tensors"]
    config = CoupledUNetConfig()
    network = CoupledUNet(config).eval()
    network.load_state_dict(from_official(formula_state(shapes, facts["salt"])))
    x = {}
    for modality, shape in (("video", (1, 16, 3, 64, 64)), ("audio", (1, 1, 25600))):
        u = formula(math.prod(shape), facts["input_index"][modality], facts["salt"])
        x[modality] = torch.from_numpy(u * facts["input_scale"]).float().reshape(shape)
    windows = [
        block.window
        for entry in [*network.input_blocks, *network.output_blocks]
        for block in entry
        if isinstance(block, CrossModalAttention)
    ]
    shifts = [facts["shift_by_window"][str(window)] for window in windows]
    output = network(AV(**x), torch.tensor([facts["timestep"]]), shifts)
    error = relative_error(output["video"][..., ::2, ::2], io["out.video_every2px"])
    assert error <= NETWORK_MARK, f"video off by {error:.2e}"
    error = relative_error(output["audio"], io["out.audio"])
    assert error <= NETWORK_MARK, f"audio off by {error:.2e}"
