"""The model folder: one index, and for each network its configuration and its weights.

    model_index.json               format version, system, kinds of the components, clip, settings
    <component>/config.json        the network's configuration dataclass
    <component>/model.safetensors  the network's state dict

Everything is written under a temporary name and renamed: a folder is either complete or absent.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from soundreel import files
from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.config_io import config_from_json, config_to_json
from soundreel.types import ClipSpec

__all__ = [
    "FORMAT_VERSION",
    "CheckpointError",
    "ModelIndex",
    "check_state",
    "load_component",
    "load_config",
    "load_model_index",
    "load_state",
    "load_state_into",
    "save_component",
    "save_model_index",
    "save_state",
    "save_tensors",
    "writing_folder",
]

Module = TypeVar("Module", bound=nn.Module)

FORMAT_VERSION = 1
INDEX_FILE = "model_index.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCALE = ".row_scale"  # of packed weights; see `packed`


@dataclass(frozen=True, kw_only=True)
class ModelIndex:
    """What a model folder holds.

    Args:
        system: `"mm-diffusion"` or `"mm-ldm"`.
        components: name of each sub-folder -> kind of network, for example
            `{"unet": "coupled-unet", "super_resolution": "super-resolution"}`.
        clip: sizes and rates of the clips; `None` for a model of single images.
        settings: plain JSON values for the pipeline (schedule, class names, ...).
    """

    system: str
    components: dict[str, str]
    clip: ClipSpec | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


def save_model_index(folder: Path, index: ModelIndex) -> None:
    """Write `model_index.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / INDEX_FILE, config_to_json(index))


def load_model_index(folder: Path) -> ModelIndex:
    """Read `model_index.json`.

    Raises:
        CheckpointError: no model folder, or one of another format version.
    """
    path = Path(folder) / INDEX_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: no model folder here ({INDEX_FILE} is missing)")
    value = _read_json(path)
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {version!r}, this release reads {FORMAT_VERSION}; "
            "use the release that wrote the folder, or import the model again"
        )
    return config_from_json(ModelIndex, value, str(path))


def save_component(folder: Path, name: str, module: nn.Module, config: Any) -> None:
    """Write `<folder>/<name>/config.json` and `model.safetensors`.

    Args:
        config: the dataclass from which the module can be built again.
    """
    save_state(folder, name, module.state_dict(), config)


def save_state(folder: Path, name: str, state: Mapping[str, Tensor], config: Any) -> None:
    """Write a component of which only the state dict exists; see `save_component`."""
    target = Path(folder) / name
    target.mkdir(parents=True, exist_ok=True)
    save_tensors(state, target / WEIGHTS_FILE)
    _write_json(target / CONFIG_FILE, config_to_json(config))


def save_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file."""
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with files.writing_file(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def load_config(folder: Path, name: str, config_type: type) -> Any:
    """Read `<folder>/<name>/config.json` as a `config_type`."""
    path = Path(folder) / name / CONFIG_FILE
    return config_from_json(config_type, _read_json(path), str(path))


def load_state(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the state dict of one component; packed or half-precision weights become float32.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = Path(folder) / name / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found; the model folder is incomplete")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    return {name: _full(name, value, state) for name, value in state.items() if _is_own(name)}


def _is_own(name: str) -> bool:
    return not name.endswith(SCALE)


def _full(name: str, value: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """A tensor in single precision, times the scales of its rows if it is packed."""
    scale = state.get(name + SCALE)
    if scale is not None:
        return value.float() * scale.float().view(-1, *(value.dim() - 1) * [1])
    return value.float() if value.dtype == torch.float16 else value


def load_state_into(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        CheckpointError: missing or surplus keys, or other shapes, by name.
    """
    check_state(module.state_dict(), state, where)
    module.load_state_dict(state)


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes of a state dict with a network's own.

    Raises:
        CheckpointError: missing or surplus keys, or other shapes, by name.
    """
    missing = [key for key in own if key not in state]
    surplus = [key for key in state if key not in own]
    other = [
        f"{key} is {tuple(state[key].shape)}, not {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = [
        f"{len(names)} {word}: {listed(names)}"
        for word, names in (("missing", missing), ("surplus", surplus), ("of another shape", other))
        if names
    ]
    if problems:
        raise CheckpointError(f"{where}: tensors do not fit the network; {'; '.join(problems)}")


def load_component(
    folder: Path, name: str, build: Callable[[Any], Module], config_type: type
) -> tuple[Module, Any]:
    """Build one component from its folder, in evaluation mode; also return its configuration.

    Args:
        build: makes the network from its configuration, usually the network's class.
    """
    config = load_config(folder, name, config_type)
    module = build(config)
    load_state_into(module, load_state(folder, name), str(Path(folder) / name / WEIGHTS_FILE))
    return module.eval(), config


def writing_folder(target: Path) -> AbstractContextManager[Path]:
    """Return a temporary folder that takes the name `target` when the block ends well.

    An existing model folder is replaced as a whole; anything else at `target` is left alone.

    Raises:
        FileError: `target` exists and is neither a model folder nor empty.
    """
    return files.writing_folder(target, marker=INDEX_FILE)


def _write_json(path: Path, value: Any) -> None:
    files.write_text(path, json.dumps(value, indent=2) + "\n")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found; the model folder is incomplete")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not a JSON file ({error})") from error
