"""Data-parallel training under `torchrun`: every process takes its part of each global batch."""

import gc
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, kw_only=True, slots=True)
class Parallel:
    """This process among those of the run; alone by default.

    Attributes:
        joined: whether `start_parallel` made the group of processes, so that `finish` leaves it.
    """

    rank: int = 0
    world_size: int = 1
    joined: bool = False

    @property
    def is_main(self) -> bool:
        """Tell whether this process writes checkpoints, logs and previews."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network as it is called in training: gradients are averaged over processes.

        Parameters that a loss does not reach keep their gradients, or none.
        """
        if self.world_size == 1:
            return network
        known = signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        options: dict[str, Any] = {
            "find_unused_parameters": True,
            "gradient_as_bucket_view": True,  # gradients are added up where they lie
            buffers: False,
        }
        return DistributedDataParallel(network, **options)

    def accumulating(self, network: nn.Module) -> AbstractContextManager[None]:
        """Hold gradients back from the other processes until a pass outside of this context."""
        if isinstance(network, DistributedDataParallel):
            return network.no_sync()
        return nullcontext() if self.world_size == 1 else _sharded_accumulating(network)

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum over the processes, without gradient."""
        if self.world_size == 1:
            return x
        total = x.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, x: Tensor) -> Tensor:
        """Return the rows of all processes in rank order, without gradient."""
        if self.world_size == 1:
            return x.detach()
        parts = [torch.empty_like(x) for _ in range(self.world_size)]
        dist.all_gather(parts, x.detach().contiguous())
        return torch.cat(parts)

    def of_main(self, flag: bool, device: torch.device) -> bool:
        """Return the flag of the main process; all processes must ask together."""
        return self.any(flag and self.is_main, device)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Tell whether the flag is set in any process; all processes must ask together."""
        if self.world_size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=device)
        dist.all_reduce(votes)
        return bool(votes.item() > 0)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.world_size > 1:
            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process run a block before the others, which then find what it has left."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()

    def finish(self) -> None:
        """Wait until every process has come here, then leave the group.

        Without leaving, a thread of gloo's may still hold the last tensor when the interpreter
        ends; the process then aborts, and a finished run is reported as failed. So do wrapped
        networks that are no longer used but, being cycles, not yet collected: they hold the group.
        """
        self.barrier()
        if self.joined:
            gc.collect()
            dist.destroy_process_group()


@contextmanager
def _sharded_accumulating(network: nn.Module) -> Iterator[None]:
    from soundreel.training.sharding import sync_gradients

    sync_gradients(network, False)
    try:
        yield
    finally:
        sync_gradients(network, True)


def start_parallel(device: torch.device) -> Parallel:
    """Join the processes that `torchrun` started; alone without it.

    The processes talk through NCCL on GPUs (one each) and gloo on CPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Parallel()
    joined = not dist.is_initialized()
    if joined:
        has_cuda = device.type == "cuda"
        if has_cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if has_cuda else "gloo")
    return Parallel(rank=dist.get_rank(), world_size=dist.get_world_size(), joined=joined)


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network itself, out of its wrapper for several processes."""
    return network.module if isinstance(network, DistributedDataParallel) else network
