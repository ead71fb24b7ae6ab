"""Model folders to files with the official MM-Diffusion key names, for the original code."""

from pathlib import Path

import torch

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import ModelIndex, load_config, load_model_index, load_state
from soundreel.files import writing_file
from soundreel.systems.mm_diffusion.import_official import BASE, SUPER_RESOLUTION
from soundreel.systems.mm_diffusion.official_keys import to_official
from soundreel.systems.super_resolution.network import SuperResolutionConfig


def export_mm_diffusion(folder: Path, target: Path) -> list[Path]:
    """Write each network of an MM-Diffusion model folder as `<target>/<component>.pt`.

    Returns:
        The files: flat float32 state dicts, as the original `torch.load` expects them.

    Raises:
        CheckpointError: the folder holds another system's model, is incomplete, or a network
            estimates something other than the noise, which the original code cannot sample from.
    """
    index = load_model_index(folder)
    names = [name for name in (BASE, SUPER_RESOLUTION) if name in index.components]
    if index.system != "mm-diffusion" or not names:
        raise CheckpointError(
            f"{folder}: only mm-diffusion models have official key names, this is {index.system}"
        )
    for name in names:
        estimated = _prediction_type(folder, index, name)
        if estimated != "epsilon":
            raise CheckpointError(
                f"{folder}: its {name} estimates {estimated!r}, the original code expects 'epsilon'"
            )
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        state = load_state(folder, name)
        path = target / f"{name}.pt"
        with writing_file(path) as temporary:
            torch.save(to_official(state) if name == BASE else state, temporary)
        written.append(path)
    return written


def _prediction_type(folder: Path, index: ModelIndex, name: str) -> str:
    if name == BASE:
        return index.settings.get("diffusion", {}).get("prediction_type", "epsilon")
    config = load_config(folder, name, SuperResolutionConfig)
    return "residual" if config.residual_scale else config.prediction_type
