"""The weights a metric needs: a file that the user gives or the package brings, recorded by its
SHA-256.

Files are read as plain tensors: safetensors, or the PyTorch files (`.pt`, `.pth`) that official
weights come as, from which no code is run. In the files of the package some matrices are 8-bit
integers with a scale for each output channel, under the name of the matrix and `.scale`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, int8, nn

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.checkpoints.import_torch import read_tensors
from soundreel.errors import SoundreelError

SCALE = ".scale"


class MetricWeightsError(SoundreelError):
    """The weights of a metric are absent, unreadable or of another network."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(
    network: nn.Module,
    path: str | Path,
    what: str,
    *,
    prefix: str = "",
    ignored: Sequence[str] = (),
) -> str:
    """Load a file into a network strictly, put it into evaluation mode, return the file's SHA-256.

    Args:
        prefix: where some names of the file start with it, the network's are those, without it.
        ignored: beginnings of the names of further tensors that the file may hold: other towers,
            heads that no feature comes from. Any other surplus tensor is an error.

    Raises:
        MetricWeightsError: no such file, a damaged one, one that needs code to be run, or names or
            shapes that differ from the network's.
    """
    path = Path(path)
    tensors = _read(path, what)
    rest: list[str] = []
    if prefix and any(name.startswith(prefix) for name in tensors):
        rest = [name for name in tensors if not name.startswith(prefix)]
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = network.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(tensors) - counters)
    surplus = sorted(set(tensors) - set(own)) + sorted(rest)
    unknown = [name for name in surplus if not name.startswith(tuple(ignored))]
    if missing or unknown:
        raise MetricWeightsError(
            f"{path}: not the weights of {what}: {len(missing)} tensors absent{_names(missing)}, "
            f"{len(unknown)} unknown{_names(unknown)}"
        )
    kept = {name: tensor for name, tensor in tensors.items() if name in own}
    for name, tensor in kept.items():
        if tensor.shape != own[name].shape:
            raise MetricWeightsError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, {what} needs "
                f"{tuple(own[name].shape)}"
            )
    network.load_state_dict(kept, strict=False)
    network.eval()
    network.requires_grad_(False)
    return file_sha256(path)


def _read(path: Path, what: str) -> dict[str, Tensor]:
    """Read tensors by name, floating ones as float32, 8-bit ones times their scales."""
    try:
        tensors = read_tensors(path)
    except CheckpointError as error:
        raise MetricWeightsError(f"{error}; it should hold the weights of {what}") from error
    scales = {k.removesuffix(SCALE): v for k, v in tensors.items() if k.endswith(SCALE)}
    scales = {k: v for k, v in scales.items() if k in tensors and tensors[k].dtype == int8}
    read = {}
    for name, tensor in tensors.items():
        if name in scales:
            scale = scales[name].float()
            read[name] = tensor.float() * scale.reshape(-1, *[1] * (tensor.ndim - 1))
        elif name.removesuffix(SCALE) not in scales:
            read[name] = tensor.float() if tensor.is_floating_point() else tensor
    return read


def _names(names: list[str]) -> str:
    return f" ({listed(names, limit=3)})" if names else ""
