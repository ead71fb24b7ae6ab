"""Weights at a quarter of their size: eight-bit integers with one scale per output row.

A large matrix `name` is stored as integers under `name` and as `name.row_scale`, one number per row
(output channel), so that `integers * scale` is the matrix to within half a step, 1/254 of the row's
largest weight. Everything small stays as it is, in half precision if that holds it. `load_state`
unpacks such files unasked, so a packed folder is a model folder like any other; it computes in
float32.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from soundreel.checkpoints.component import CONFIG_FILE, SCALE, WEIGHTS_FILE, save_tensors
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.hub import resolve_model
from soundreel.checkpoints.store import read_model, save_model_index, writing_folder
from soundreel.errors import SoundreelError
from soundreel.json_yaml import write_checked_json

SMALLEST = 4096  # elements from which on a matrix is worth its scales
LEVELS = 127


def pack_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pack matrices as integers with scales, the rest in half precision.

    Raises:
        SoundreelError: a weight is not finite, or a name that packing needs is taken.
    """
    packed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(SCALE):
            raise SoundreelError(f"{name}: names that end in {SCALE} are packing's own")
        if not bool(torch.isfinite(value).all()):
            raise SoundreelError(f"{name}: holds values that are not finite; the model is damaged")
        if value.is_floating_point() and value.dim() >= 2 and value.numel() >= SMALLEST:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(dim=1).clamp(min=1e-12) / LEVELS
            packed[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            packed[name + SCALE] = scale
        else:
            fits = value.is_floating_point() and bool(torch.isfinite(value.half()).all())
            packed[name] = value.half() if fits else value
    return packed


def pack_model(source: str | Path, dest: Path) -> int:
    """Write a packed copy of a model folder; return the bytes of its weights.

    Args:
        source: model folder, or owner/name on the Hub.

    Raises:
        CheckpointError: no model there, or a damaged one, or something else at `dest`.
    """
    folder = resolve_model(source)
    model = read_model(folder)
    if Path(dest).resolve() == folder.resolve():
        raise CheckpointError(f"{dest}: is the model itself; give another folder")
    total = 0
    with writing_folder(Path(dest)) as temporary:
        for name, component in model.components.items():
            (temporary / name).mkdir()
            state = component.state()
            try:
                packed = pack_state(state)
            except SoundreelError as error:
                raise CheckpointError(f"{component.folder}: {error}") from None
            save_tensors(packed, temporary / name / WEIGHTS_FILE)
            write_checked_json(temporary / name / CONFIG_FILE, component.config)
            total += (temporary / name / WEIGHTS_FILE).stat().st_size
        save_model_index(temporary, model.index)
    return total
