"""Data-parallel training under `torchrun`: every process takes its part of each global batch.

Gradients are averaged once a step, after all micro-batches, so that networks, objectives and the
loop stay single-process code.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


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
        """Whether this process writes checkpoints, logs and previews."""
        return self.rank == 0

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its mean over the processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.world_size
        sizes = [g.numel() for g in gradients]
        for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in any process; all processes must ask together."""
        if self.world_size == 1:
            return flag
        votes = torch.tensor([float(flag)], device=device)
        dist.all_reduce(votes)
        return bool(votes.item() > 0)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.world_size > 1:
            dist.barrier()

    def finish(self) -> None:
        """Wait until every process has come here, then leave the group.

        Without leaving, a thread of gloo's may still hold the last tensor when the interpreter
        ends; the process then aborts, and a finished run is reported as failed.
        """
        self.barrier()
        if self.joined:
            dist.destroy_process_group()


def start_parallel() -> Parallel:
    """Join the processes that `torchrun` started; alone without it.

    The processes talk through NCCL on GPUs (one each) and gloo on CPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return Parallel()
    joined = not dist.is_initialized()
    if joined:
        has_cuda = torch.cuda.is_available()
        if has_cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if has_cuda else "gloo")
    return Parallel(rank=dist.get_rank(), world_size=dist.get_world_size(), joined=joined)
