"""Networks divided among the processes: weights, gradients, moments and averages.

PyTorch's FSDP2 puts the whole weights of a block together while the block computes;
`torch.distributed.checkpoint` writes and reads each process's shares, as safetensors. Imported only
where a network is divided, since it takes a second.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils.parametrize import ParametrizationList

from soundreel.checkpoints.component import check_shapes
from soundreel.checkpoints.errors import CheckpointError
from soundreel.files import FileError

Key = TypeVar("Key")

LEAST_SHARE = 0.002
"""Least share of a network's numbers in a block that is put together by itself; smaller ones are
not worth the message."""


def shard(network: nn.Module, device: torch.device) -> None:
    """Divide a network's parameters among the processes, each along its first axis.

    The repeated blocks are put together one at a time, all else for the whole pass. All begin with
    the values of the first process. Methods beside `forward` that need whole weights are named by
    the network's attribute `forward_methods`.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.contiguous()  # FSDP2 knows no other order in memory
        dist.broadcast(tensor.data, 0)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in repeated_blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    # Views are harmless where nothing is changed in place, which no network does to what it gets.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
    for name in getattr(network, "forward_methods", ()):
        register_fsdp_forward_method(network, name)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the members of a network's module lists, the outermost ones that are large enough."""

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    least, found = LEAST_SHARE * size(network), []

    def walk(module: nn.Module) -> None:
        is_list = isinstance(module, nn.ModuleList) and not isinstance(module, ParametrizationList)
        for child in module.children():
            if is_list and not isinstance(child, nn.ModuleList) and size(child) >= least:
                found.append(child)
            else:
                walk(child)

    walk(network)
    return found


def sync_gradients(network: nn.Module, enabled: bool) -> None:
    """Say whether backward passes from now on share out the sums of the gradients."""
    assert isinstance(network, FSDPModule)
    network.set_requires_gradient_sync(enabled)


def local(tensor: Tensor) -> Tensor:
    """Return this process's share of a divided tensor, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a divided tensor put together; all processes must ask together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(state: Mapping[Key, Tensor], *, keep: bool) -> dict[Key, Tensor]:
    """Return tensors put together one by one, on the CPU; nothing in processes without `keep`.

    All processes must ask together.
    """
    kept = {}
    for name, tensor in state.items():
        one = whole(tensor.detach())
        if keep:
            kept[name] = one.cpu()
    return kept


def divided(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor divided as another one is; itself where that is whole."""
    if not isinstance(like, DTensor):
        return tensor
    placed = tensor.to(like.device)
    return distribute_tensor(placed, like.device_mesh, like.placements, src_data_rank=None)


def save_shards(tensors: Mapping[str, Tensor], target: Path, temporary: Path | None) -> None:
    """Write tensors to a folder, each process its shares; all processes must come here together.

    Args:
        target: name that the folder is to get.
        temporary: its name until then, of which the main process tells the others; None there
            writes nothing.

    Raises:
        FileError: a process cannot write.
    """
    named = [None if temporary is None else str(temporary)]
    dist.broadcast_object_list(named, 0)
    if named[0] is None:
        return
    writer = HuggingFaceStorageWriter(named[0], save_distributed=True)
    state = {name: _alone(tensor.detach()) for name, tensor in tensors.items()}
    try:
        dcp.save(state, storage_writer=writer)
    except CheckpointException as error:
        raise FileError(f"{target}: cannot be written ({_cause(error)})") from error


def _alone(tensor: Tensor) -> Tensor:
    """Return a tensor whose memory no other has, as the file format asks."""
    return (
        tensor
        if isinstance(tensor, DTensor)
        else tensor.clone(memory_format=torch.contiguous_format)
    )


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the tensors whose shares lie in a folder.

    Raises:
        CheckpointError: a file is damaged.
    """
    with _reading(folder):
        stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
        return {name: tuple(entry.size) for name, entry in stored.items()}  # pyrefly: ignore


def load_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors, divided or whole, from the shares of however many processes.

    Raises:
        CheckpointError: other names or shapes, or a file is damaged.
    """
    own = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes(own, stored_shapes(folder), str(folder))
    with _reading(folder):
        reader = HuggingFaceStorageReader(str(folder))
        dcp.load(dict(tensors), storage_reader=reader, no_dist=True)


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn what reading damaged shares raises into one line."""
    try:
        with warnings.catch_warnings(action="ignore"):  # every process reads for itself, on purpose
            yield
    except CheckpointException as error:
        raise CheckpointError(f"{folder}: cannot be read ({_cause(error)})") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error


def _cause(error: CheckpointException) -> str:
    cause, _ = next(iter(error.failures.values()))
    return " ".join(str(cause).split())
