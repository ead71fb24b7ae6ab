"""Memory layout and recomputation: what changes speed and memory but no result."""

import ctypes
import sys
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Module = TypeVar("Module", bound=nn.Module)


def to_channels_last(module: Module) -> Module:
    """Store 2-D convolution weights with the channels innermost: several times faster on CPUs."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return module


def channels_last(x: Tensor) -> Tensor:
    """Return the same images with the channels innermost in memory."""
    return x.contiguous(memory_format=torch.channels_last)


def run(block: Callable[..., Tensor], *inputs: object, recompute: bool) -> Tensor:
    """Call a block; with `recompute`, keep only its inputs and run it again for the gradient."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)


def recompute_activations(network: nn.Module) -> bool:
    """Let all parts of a network that can run again for the gradient; return whether any can.

    Such a part has an attribute `recompute`, which it hands to `run`.
    """
    parts = [part for part in network.modules() if hasattr(part, "recompute")]
    for part in parts:
        part.recompute = True  # pyrefly: ignore[bad-argument-type]
    return bool(parts)


LARGE_BYTES = 16 << 20


def return_free_memory() -> None:
    """Give the system the freed memory that the C library keeps, where that is glibc.

    By itself it keeps blocks of up to 32 MB, which blocks of other sizes cannot use: 0.3 GB within
    a pass of the published Coupled U-Net. From the first call on, blocks from `LARGE_BYTES` on go
    back as soon as they are freed. A call takes milliseconds.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.mallopt(_MMAP_THRESHOLD, LARGE_BYTES)
        library.malloc_trim(0)


_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
