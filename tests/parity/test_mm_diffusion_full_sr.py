"""The published super-resolution network at full size, with weights given by a formula."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)

NETWORK_TOLERANCE = 5e-5


def hashed(shape, index, salt):
    """The README's hash of the element number, uniform in [-1, 1]."""
    with np.errstate(over="ignore"):
        x = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(2654435761)
        x += np.uint32(((index + 1) * 2246822519 + salt * 3266489917) % 2**32)
        x ^= x >> np.uint32(15)
        x *= np.uint32(2246822519)
        x ^= x >> np.uint32(13)
        x *= np.uint32(3266489917)
        x ^= x >> np.uint32(16)
    return torch.from_numpy(x.astype(np.float64) / 2**32 * 2 - 1).reshape(shape)


@torch.no_grad()
def fill(network, salt):
    tensors = network.state_dict()
    for index, name in enumerate(sorted(tensors)):
        tensor = tensors[name]
        u = hashed(tuple(tensor.shape), index, salt)
        if tensor.ndim > 1:
            u = u * math.sqrt(1.92 / (tensor.numel() / tensor.shape[0]))
        else:
            u = 1 + 0.2 * u if name.endswith("weight") else 0.1 * u
        tensor.copy_(u)


@pytest.mark.slow
def test_the_full_network_equals_the_reference(parity_folder):
    folder = parity_folder("mm_diffusion")
    for name in ("full_sr_formula.json", "full_sr_formula.safetensors"):
        if not (folder / name).is_file():
            pytest.skip(f"{name} is not in {folder}")
    sidecar = json.loads((folder / "full_sr_formula.json").read_text())
    expected = load_file(folder / "full_sr_formula.safetensors")["out_every4px"]
    config = SuperResolutionConfig()
    with torch.device("meta"):
        network = SuperResolutionUNet(config)
    network = network.to_empty(device="cpu").eval()
    fill(network, sidecar["salt"])

    def image(name, size):
        u = hashed((1, 3, size, size), sidecar["input_index"][name], sidecar["salt"])
        return (u * sidecar["input_scale"][name]).float()

    with torch.no_grad():
        out = network(
            image("x", config.size),
            image("low_res", config.low_res_size),
            torch.tensor([sidecar["timestep"]]),
        )
    got = out[:, :, ::4, ::4]
    error = float((got - expected).abs().max() / expected.abs().max())
    assert got.shape == expected.shape
    assert error <= NETWORK_TOLERANCE, f"relative error {error:.2e}"
