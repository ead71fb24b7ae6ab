"""LPIPS in the layouts of its package and of CompVis, against distances by the package."""

import math

import pytest
import torch
from safetensors.torch import save_file

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.perceptual_weights import load_perceptual_loss
from soundreel.nn.perceptual_loss import BACKBONES

# By lpips 0.1.4 on torchvision's networks, with the weights and images of the formulae below.
GOLDEN = {
    "LPIPS AlexNet": [0.06523419916629791, 0.06766597926616669],
    "LPIPS VGG-16": [0.06585173308849335, 0.0656355768442154],
}


def formula(shape, seed, gain):
    i = torch.arange(math.prod(shape))
    return ((i * (i % 1009 + 3) * 7919 + seed * 104_729) % 10_007).float().reshape(shape) * (
        gain / 5_003.0
    ) - gain


def images():
    first = formula((2, 3, 8, 6), 90, 0.8)
    first = torch.nn.functional.interpolate(first, scale_factor=8)
    return first, first + formula(first.shape, 91, 0.2)


def lpips_state(backbone):
    """The state dict of the package, of formula weights in the order of its sorted names."""
    shapes = {}
    width = 3
    for index, stage in enumerate(backbone.stages):
        for layer in stage:
            shapes[f"net.{layer.name}.weight"] = (layer.channels, width, layer.kernel, layer.kernel)
            shapes[f"net.{layer.name}.bias"] = (layer.channels,)
            width = layer.channels
        shapes[f"lin{index}.model.1.weight"] = (1, width, 1, 1)
    state = {}
    for seed, (name, shape) in enumerate(sorted(shapes.items())):
        if name.startswith("lin"):
            state[name] = formula(shape, seed, 1.0).abs()
        else:
            gain = 2 / math.sqrt(math.prod(shape[1:])) if len(shape) == 4 else 0.1
            state[name] = formula(shape, seed, gain)
    return state


def torchvision_name(name):
    return "features." + name.split(".", 2)[2]


@pytest.mark.parametrize("name", GOLDEN)
def test_distances_are_those_of_the_original_package(name, tmp_path):
    state = lpips_state(BACKBONES[name])
    extra = {"scaling_layer.shift": torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)}
    torch.save(state | extra | {"lins.0.model.1.weight": torch.ones(1)}, tmp_path / "lpips.pth")
    whole = load_perceptual_loss(tmp_path / "lpips.pth")(*images())
    assert torch.allclose(whole, torch.tensor(GOLDEN[name]), rtol=2e-5, atol=0)
    folder = tmp_path / "two files"
    folder.mkdir()
    lin = {key: value for key, value in state.items() if key.startswith("lin")}
    net = {torchvision_name(k): value for k, value in state.items() if k.startswith("net.")}
    torch.save(lin, folder / "vgg.pth")
    save_file(net | {"classifier.0.bias": torch.ones(1)}, folder / "network.safetensors")
    assert torch.equal(load_perceptual_loss(folder)(*images()), whole)


def test_incomplete_and_foreign_files_are_refused_by_name(tmp_path):
    state = lpips_state(BACKBONES["LPIPS AlexNet"])
    torch.save({k: v for k, v in state.items() if k.startswith("lin")}, tmp_path / "alex.pth")
    with pytest.raises(CheckpointError, match=r"nearest is LPIPS AlexNet.*torchvision's network"):
        load_perceptual_loss(tmp_path / "alex.pth")
    torch.save(state | {"net.slice1.0.bias": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other shapes of convs.0.bias"):
        load_perceptual_loss(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        load_perceptual_loss(tmp_path / "absent.pth")
