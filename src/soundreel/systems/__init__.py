"""The systems by name: the only list. Everything outside this folder asks here and names none.

Adding a system is a folder (or a file) that ends in `SYSTEM = System(...)` and one line here.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from soundreel.checkpoints.adapter import with_adapter
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.hub import DEFAULT_MODEL, resolve_model
from soundreel.checkpoints.store import ModelFolder, ModelIndex, read_model
from soundreel.config_io import ConfigError
from soundreel.data.options import RECIPES, Recipe
from soundreel.device import find_device
from soundreel.protocols import Pipeline, System, Upscaler

SYSTEMS = {
    "mm-diffusion": "soundreel.systems.mm_diffusion.system",
    "mm-diffusion-sr": "soundreel.systems.super_resolution.system",
    "mm-ldm": "soundreel.systems.mm_ldm.system",
    "joint-flow": "soundreel.systems.joint_flow.system",
}
"""Name of each system -> module that holds its `SYSTEM`, imported when it is needed."""


def system(name: str) -> System:
    """Return a system by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"unknown system {name!r}; one of: {', '.join(SYSTEMS)}")
    return import_module(SYSTEMS[name]).SYSTEM


def all_systems() -> list[System]:
    """Return every system, in the order of the list."""
    return [system(name) for name in SYSTEMS]


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return [name for entry in all_systems() for name in entry.presets]


def preset(name: str) -> Any:
    """Return the configuration of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    for entry in all_systems():
        if name in entry.presets:
            return entry.presets[name]()
    raise ConfigError(f"unknown preset {name!r}; one of: {', '.join(preset_names())}")


def recipes() -> dict[str, Recipe]:
    """Return the recipes of `soundreel prepare` by name, those of the systems among them."""
    return RECIPES | {name: r for entry in all_systems() for name, r in entry.recipes.items()}


def load(
    name_or_path: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    device: torch.device | str | None = None,
) -> Pipeline:
    """Return a model, ready to generate.

    Args:
        name_or_path: a model folder, or `owner/name` on the Hub; default: the model that comes with
            the package.
        adapter: folder of a LoRA adapter, trained on this model; merged into its weights.
        device: default: CUDA if there is one, else the CPU.

    Raises:
        CheckpointError: there is no such model, or its folder is incomplete or damaged.
        SoundreelError: there is no such device.
    """
    found = find_device(device)
    model = _read(DEFAULT_MODEL if name_or_path is None else name_or_path, adapter)
    return _opener(model, upscales=False).load(model, found)


def load_upscaler(
    name_or_path: str | Path,
    *,
    adapter: str | Path | None = None,
    device: torch.device | str | None = None,
) -> Upscaler:
    """Return a model that enlarges clips.

    Args:
        name_or_path: a model folder, or `owner/name` on the Hub.
        adapter: as for `load`.
        device: default: CUDA if there is one, else the CPU.

    Raises:
        CheckpointError: there is no such model, or its folder is incomplete or damaged.
        SoundreelError: there is no such device.
    """
    found = find_device(device)
    model = _read(name_or_path, adapter)
    return _opener(model, upscales=True).load(model, found)


def _read(name_or_path: str | Path, adapter: str | Path | None) -> ModelFolder:
    model = read_model(resolve_model(name_or_path))
    return model if adapter is None else with_adapter(model, adapter)


def _opener(model: ModelFolder, *, upscales: bool) -> System:
    """Return the system that opens a model folder.

    Raises:
        CheckpointError: there is none, or none that does what is asked.
    """
    index, folder = model.index, model.path
    if index.system not in SYSTEMS:
        raise CheckpointError(f"{folder}: unknown system {index.system!r}; update soundreel")
    named = system(index.system)
    if named.upscales == upscales and _holds(index, named):
        return named
    others = [entry for entry in all_systems() if entry.components and _holds(index, entry)]
    for entry in others:
        if entry.upscales == upscales:
            return entry
    if others and not upscales:
        raise CheckpointError(
            f"{folder}: holds a model that enlarges clips: use it with `soundreel upscale` or"
            " `soundreel generate --upscale`"
        )
    held = ", ".join(index.components) or "nothing"
    wanted = "model that enlarges clips" if upscales else f"complete {index.system} model"
    raise CheckpointError(f"{folder}: holds no {wanted}, only {held}")


def _holds(index: ModelIndex, entry: System) -> bool:
    """Return whether a folder has the networks that a system needs."""
    return entry.components <= set(index.components.values())
