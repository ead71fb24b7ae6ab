"""Collecting rows from every process of a distributed run, with gradients."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed


class _GatherRows(torch.autograd.Function):
    """Gather forward, sum and take the own rows backward.

    Nothing of the graph holds the process group: a group that outlives its leaving keeps gloo's
    threads, and these abort the process when the interpreter ends.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.first_row = distributed.get_rank() * len(x)
        ctx.num_rows = len(x)
        x = x.contiguous()
        parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.narrow(0, ctx.first_row, ctx.num_rows)


def gather_rows(x: Float[Tensor, "row dim"]) -> Float[Tensor, "all_rows dim"]:
    """Return the rows of all processes, in rank order; `x` itself where nothing is distributed.

    Every process must hold equally many rows. The gradient of a row is the sum of what all
    processes' losses send back to it, so that averaging over processes, as data-parallel training
    does, gives the gradient of the mean loss.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    return _GatherRows.apply(x)


def process_rank() -> int:
    """Return this process's place in the distributed run; 0 where nothing is distributed."""
    is_running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if is_running else 0
