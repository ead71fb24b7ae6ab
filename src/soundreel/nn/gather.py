"""Collecting rows from every process of a distributed run, with gradients."""

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
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x))


def process_rank() -> int:
    """Return this process's place in the distributed run; 0 where nothing is distributed."""
    is_running = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if is_running else 0
