"""Read tensors from other projects' weight files without running any code stored in them."""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError, listed

_ALLOCATING = frozenset({"bytearray", "Tensor"})
"""Names that `weights_only=True` allows, that take as much memory as a number says, and that no
dictionary of tensors needs."""
_NUM_LEGACY_PICKLES = 4  # magic number, protocol, machine, content


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
        _check_memory(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
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


def _check_memory(path: Path) -> None:
    """Refuse a file that would take much more memory than it has bytes, before it is read.

    PyTorch stores the members of its archives uncompressed, each once.

    Raises:
        CheckpointError: its members are larger than it is, or its pickle asks for memory.
    """
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            if declared > size:
                raise CheckpointError(
                    f"{path}: refused: its members declare {declared:,} bytes, more than its own"
                    f" {size:,}; PyTorch compresses nothing"
                )
            pickles = [m for m in members if m.filename.endswith(".pkl")]
            names = {n for m in pickles for n in _names(io.BytesIO(archive.read(m)), 1)}
    else:
        with path.open("rb") as file:
            names = set(_names(file, _NUM_LEGACY_PICKLES))
    if names & _ALLOCATING:
        raise CheckpointError(
            f"{path}: refused: not a plain dictionary of tensors, it calls {listed(sorted(names))}"
        )


def _names(file: io.BytesIO | io.BufferedReader, num_pickles: int) -> Iterator[str]:
    """Yield what the pickles at the beginning of a file import, or could by name; run nothing."""
    with suppress(Exception):  # damaged; the reader says so
        for _ in range(num_pickles):
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    yield str(argument).partition(" ")[2]
                elif "UNICODE" in operation.name:  # what STACK_GLOBAL imports lies on the stack
                    yield from {str(argument)} & _ALLOCATING


def _is_stored_whole(value: Tensor) -> bool:
    """Tell whether every element has its place in memory: strides of 0 can declare any size."""
    if value.layout != torch.strided or value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


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
    unlike = [key for key, value in loaded.items() if not _is_stored_whole(value)]
    if unlike:
        raise CheckpointError(
            f"{path}: holds less than it declares: {listed(list(map(str, unlike)))}"
        )
    return {str(key): value for key, value in loaded.items()}


def _essence(error: Exception) -> str:
    """Return the first sentence of torch's long advice, which recommends what we must not do."""
    text = str(error).strip()
    for line in text.splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip().partition(". ")[0]
    return text.splitlines()[0].partition(". ")[0] if text else type(error).__name__
