"""Collecting rows from every process of a distributed run, with gradients."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed


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


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.num_rows = x.shape[0]
        parts = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyrefly: ignore[bad-override]
        total = gradient.contiguous()
        distributed.all_reduce(total)
        first = ctx.num_rows * distributed.get_rank()
        return total[first : first + ctx.num_rows]
