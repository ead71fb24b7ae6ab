"""The weights a metric needs: the user gives a file, and its SHA-256 is recorded."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class MetricWeightsError(ValueError):
    """The weights of a metric are absent, unreadable or of another network."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: str | Path, what: str) -> tuple[dict[str, Tensor], str]:
    """Tensors (floating ones as float32) and SHA-256 of a safetensors file.

    Raises:
        MetricWeightsError: no such file, or no safetensors file; the message names `what` is
        needed.
    """
    path = Path(path)
    if not path.is_file():
        raise MetricWeightsError(f"{path}: no such file; it should hold the weights of {what}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise MetricWeightsError(
            f"{path}: not a safetensors file ({error}); convert the weights of {what} first"
        ) from error
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return tensors, file_sha256(path)


def load_weights(network: nn.Module, path: str | Path, what: str, prefix: str = "") -> str:
    """Load a file into a network strictly, put it into evaluation mode, return the file's SHA-256.

    Args:
        prefix: where some names of the file start with it, only those are used, without it.

    Raises:
        MetricWeightsError: names or shapes differ from the network's.
    """
    tensors, digest = read_weights(path, what)
    if prefix and any(name.startswith(prefix) for name in tensors):
        kept = {k: v for k, v in tensors.items() if k.startswith(prefix)}
        tensors = {k.removeprefix(prefix): v for k, v in kept.items()}
    own = network.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing = sorted(set(own) - set(tensors) - counters)
    unknown = sorted(set(tensors) - set(own))
    if missing or unknown:
        raise MetricWeightsError(
            f"{path}: not the weights of {what}: {len(missing)} tensors absent"
            f"{_first(missing)}, {len(unknown)} unknown{_first(unknown)}"
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise MetricWeightsError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, {what} needs "
                f"{tuple(own[name].shape)}"
            )
    network.load_state_dict(tensors, strict=False)
    network.eval()
    network.requires_grad_(False)
    return digest


def _first(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""
