"""Names, shapes and counts of the full-size networks' parameters, built without memory."""

import json
from dataclasses import replace

import pytest
import torch

from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.official_keys import from_official, to_official
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)


def listed(parity_folder, name):
    path = parity_folder("mm_diffusion") / name
    if not path.is_file():
        pytest.skip(f"{name} is not in this set")
    data = json.loads(path.read_text())
    return {key: tuple(shape) for key, shape in data["tensors"].items()}, data["parameters"]


def state(network_type, config):
    with torch.device("meta"):
        return network_type(config).state_dict()


def shapes(tensors):
    return {key: tuple(value.shape) for key, value in tensors.items()}


def count(tensors):
    return sum(value.numel() for value in tensors.values())


def test_the_super_resolution_network_has_the_official_names_and_shapes(parity_folder):
    expected, parameters = listed(parity_folder, "state_dict_sr_64_to_256.json")
    own = state(SuperResolutionUNet, SuperResolutionConfig())
    assert shapes(own) == expected
    assert list(own) == list(expected)
    assert count(own) == parameters == 311_027_910


def test_the_base_network_has_the_official_names_and_shapes(parity_folder):
    expected, parameters = listed(parity_folder, "state_dict_landscape_base_64x64.json")
    own = state(CoupledUNet, CoupledUNetConfig())
    official = to_official(own)
    assert shapes(official) == expected
    assert count(official) == parameters == 133_675_524
    assert shapes(from_official(official)) == shapes(own)


def test_the_base_network_of_width_256_scales_the_listed_shapes(parity_folder):
    expected, _ = listed(parity_folder, "state_dict_landscape_base_64x64.json")
    own = to_official(state(CoupledUNet, replace(CoupledUNetConfig(), width=256)))
    assert own.keys() == expected.keys()
    # Every axis of features doubles; the axes of pixels, samples and kernels stay.
    for key, shape in expected.items():
        doubled = tuple(2 * size if size >= 128 else size for size in shape)
        assert tuple(own[key].shape) == doubled, key
    assert count(own) == 534_017_028
