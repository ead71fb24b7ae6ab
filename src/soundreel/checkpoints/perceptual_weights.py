"""Read the weights of a perceptual distance: ST-LPIPS, or LPIPS as its package and CompVis have it.

LPIPS comes as one file with everything, or as two: the weights of its linear layers (`vgg.pth`,
`alex.pth`; the packages of LPIPS and of CompVis hold these) and torchvision's network
(`vgg16-*.pth`, `alexnet-*.pth`). Two files lie in one folder, and the folder is given.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.checkpoints.import_torch import read_tensors
from soundreel.nn.perceptual_loss import BACKBONES, Backbone, PerceptualLoss

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def load_perceptual_loss(source: str | Path) -> PerceptualLoss:
    """Return the distance whose weights a file, or the files of a folder, hold; frozen.

    Raises:
        CheckpointError: unreadable, incomplete, or weights of another network.
    """
    path = Path(source).expanduser()
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    stored: dict[str, Tensor] = {}
    for file in files:
        stored |= {name: value for name, value in read_tensors(file).items() if _is_used(name)}
    missing = {name: _missing(stored, backbone) for name, backbone in BACKBONES.items()}
    name = min(missing, key=lambda candidate: len(missing[candidate]))
    if missing[name]:
        raise CheckpointError(
            f"{source}: not the weights of a perceptual distance ({', '.join(BACKBONES)}); nearest "
            f"is {name}, without {listed(missing[name], 3)}; a file of linear layers alone needs "
            "torchvision's network beside it: give the folder of both"
        )
    model = PerceptualLoss(BACKBONES[name])
    own = model.state_dict()
    state = {key: stored[found] for key, found in _names(stored, BACKBONES[name]).items()}
    wrong = [key for key, value in state.items() if value.numel() != own[key].numel()]
    if wrong:
        raise CheckpointError(f"{source}: not {name}: other shapes of {listed(wrong, 3)}")
    own |= {key: value.float().reshape(own[key].shape) for key, value in state.items()}
    model.load_state_dict(own)
    return model


def _names(stored: Mapping[str, Tensor], backbone: Backbone) -> dict[str, str]:
    """Return the name in the files of each tensor of ours that is there."""
    candidates: dict[str, list[str]] = {
        "shift": ["scaling_layer.shift"],
        "scale": ["scaling_layer.scale"],
    }
    for index in range(len(backbone.stages)):
        candidates[f"weights.{index}"] = [f"lin{index}.model.1.weight"]
    layers = [layer for stage in backbone.stages for layer in stage]
    for index, layer in enumerate(layers):
        place = layer.name.partition(".")[2]
        for part in ("weight", "bias"):
            names = [f"net.{layer.name}.{part}"]
            if not backbone.blurred:
                names.append(f"features.{place}.{part}")
            candidates[f"convs.{index}.{part}"] = names
    found = {key: [n for n in names if n in stored] for key, names in candidates.items()}
    return {key: names[0] for key, names in found.items() if names}


def _missing(stored: Mapping[str, Tensor], backbone: Backbone) -> list[str]:
    """Return the names of ours, without the colour scaling that has a default, not in the files."""
    own = PerceptualLoss(backbone).state_dict().keys() - {"shift", "scale"}
    return sorted(own - _names(stored, backbone).keys())


def _is_used(name: str) -> bool:
    """Return whether a tensor may belong to the distance; `lins.*` repeats `lin*` in some files."""
    return re.match(r"(net\.|features\.|lin\d|scaling_layer\.)", name) is not None
