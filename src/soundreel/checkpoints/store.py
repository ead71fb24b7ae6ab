"""The model folder: one index, and for each network its configuration and its weights.

    model_index.json               format version, system, kinds of the components, clip, settings
    <component>/config.json        the network's configuration dataclass
    <component>/model.safetensors  the network's state dict

Everything is written under a temporary name and renamed: a folder is either complete or absent.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from soundreel import files
from soundreel.checkpoints.component import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Config,
    Module,
    StoredComponent,
    save_tensors,
)
from soundreel.checkpoints.errors import CheckpointError
from soundreel.config_io import config_from_json, save_json
from soundreel.json_yaml import read_checked_json
from soundreel.types import ClipSpec

FORMAT_VERSION = 1
INDEX_FILE = "model_index.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class ModelIndex:
    """Contents of a model folder.

    Args:
        system: `"mm-diffusion"` or `"mm-ldm"`.
        components: name of each sub-folder -> kind of network, for example
            `{"unet": "coupled-unet", "super_resolution": "super-resolution"}`.
        clip: sizes and rates of the clips; `None` for a model of single images.
        settings: plain JSON values for the pipeline (schedule, class names, ...).
        checksums: CRC-32 of the weights by component; filled in by `save_model_index`.
    """

    system: str
    components: dict[str, str]
    clip: ClipSpec | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in self.components:
            if not _PLAIN_NAME.fullmatch(name):  # it becomes the name of a folder
                raise CheckpointError(
                    f"a component is named by letters, digits, - and _, got {name!r}"
                )


def save_model_index(folder: Path, index: ModelIndex) -> None:
    """Write `model_index.json`, with the checksums of the components that lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: folder / name / WEIGHTS_FILE for name in index.components}
    checksums = {name: files.file_checksum(p) for name, p in weights.items() if p.is_file()}
    save_json(replace(index, checksums=checksums), folder / INDEX_FILE)


def load_model_index(folder: Path) -> ModelIndex:
    """Read `model_index.json`.

    Raises:
        CheckpointError: no model folder, a damaged index, or one of another format version.
    """
    path = Path(folder) / INDEX_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder}: no model folder here ({INDEX_FILE} is missing)")
    value = read_checked_json(path, CheckpointError)
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version is {version!r}, this release reads {FORMAT_VERSION}; "
            "use the release that wrote the folder, or import the model again"
        )
    return config_from_json(ModelIndex, value, str(path), error=CheckpointError)


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
    save_json(config, target / CONFIG_FILE)


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model folder as it was read, once: pipelines are built from it."""

    path: Path
    index: ModelIndex
    components: dict[str, StoredComponent]

    def component(self, name: str) -> StoredComponent:
        """Return a component.

        Raises:
            CheckpointError: the folder has none of that name.
        """
        if name not in self.components:
            held = ", ".join(self.components) or "nothing"
            raise CheckpointError(f"{self.path}: holds no {name}, only {held}")
        return self.components[name]


def read_model(folder: Path) -> ModelFolder:
    """Read index and configurations of a model folder; weights are read when they are asked for.

    Raises:
        CheckpointError: no model folder, or an incomplete or damaged one.
    """
    folder = Path(folder)
    index = load_model_index(folder)
    components = {
        name: StoredComponent.read(folder / name, checksum=index.checksums.get(name, ""))
        for name in index.components
    }
    return ModelFolder(path=folder, index=index, components=components)


def load_component(
    folder: Path, name: str, build: Callable[[Any], Module], config_type: type[Config]
) -> tuple[Module, Config]:
    """Build one component of a folder; see `StoredComponent.build`."""
    checksum = _checksum(Path(folder), name)
    return StoredComponent.read(Path(folder) / name, checksum=checksum).build(build, config_type)


def load_config(folder: Path, name: str, config_type: type[Config]) -> Config:
    """Read the configuration of one component of a folder."""
    return StoredComponent.read(Path(folder) / name).configuration(config_type)


def load_state(folder: Path, name: str) -> dict[str, Tensor]:
    """Read the state dict of one component of a folder; see `StoredComponent.state`."""
    checksum = _checksum(Path(folder), name)
    return StoredComponent(folder=Path(folder) / name, config=None, checksum=checksum).state()


def _checksum(folder: Path, name: str) -> str:
    """Return the checksum of a component's weights; empty where none was written."""
    has_index = (folder / INDEX_FILE).is_file()
    return load_model_index(folder).checksums.get(name, "") if has_index else ""


def writing_folder(target: Path) -> AbstractContextManager[Path]:
    """Return a temporary folder that takes the name `target` when the block ends well.

    An existing model folder is replaced as a whole; anything else at `target` is left alone.

    Raises:
        FileError: `target` exists and is neither a model folder nor empty.
    """
    return files.writing_folder(target, marker=INDEX_FILE)
