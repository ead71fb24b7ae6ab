"""Read tensors from other projects' weight files without running any code stored in them."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError, listed


def read_tensors(path: Path, wrappers: tuple[str, ...] = ("state_dict",)) -> dict[str, Tensor]:
    """Return the tensors of a `.safetensors` file or of a PyTorch checkpoint, by name, on the CPU.

    Args:
        wrappers: keys under which a checkpoint may hold its state dict instead of being one.

    Raises:
        CheckpointError: no such file, a damaged one, one that needs code to be run, or one that is
            no flat state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused: not a plain dictionary of tensors (reading the rest could run code "
            f"that is stored in it), or damaged: {_essence(error)}"
        ) from error
    except Exception as error:  # damaged bytes make these readers fail in any way at all
        raise CheckpointError(
            f"{path}: truncated or no weight file ({_essence(error)}); fetch it again"
        ) from error
    return _flat(path, loaded, wrappers)


def _flat(path: Path, loaded: Any, wrappers: tuple[str, ...]) -> dict[str, Tensor]:
    for name in wrappers:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, not a state dict")
    others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path}: {len(others)} entries are no tensors: {listed(others)}; is this an optimizer "
            "or a training state instead of the model?"
        )
    return {str(key): value for key, value in loaded.items()}


def _essence(error: Exception) -> str:
    """Return the first sentence of torch's long advice, which recommends what we must not do."""
    text = str(error).strip()
    for line in text.splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip().partition(". ")[0]
    return text.splitlines()[0].partition(". ")[0] if text else type(error).__name__
