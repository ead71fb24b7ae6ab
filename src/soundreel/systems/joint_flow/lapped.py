"""Lapped transform along time: eight frames a window, one window every four frames.

Blocks of frames that know nothing of each other make a small jump at every border, which a sync
metric takes for an event. Windows that overlap do not, for the same count of numbers.

Source:
    Princen and Bradley 1986; Malvar 1990, the modulated lapped transform.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

HOP = 4
"""Frames from one window to the next, and coefficients of each pixel and window."""


@cache
@torch.inference_mode(mode=False)  # what is kept must also serve training
def lapped_basis() -> Float[Tensor, "coefficient window"]:
    """Return the orthonormal rows of the transform: cosines under a sine window."""
    frame = torch.arange(2 * HOP, dtype=torch.float64, device="cpu")
    coefficient = torch.arange(HOP, dtype=torch.float64, device="cpu")[:, None]
    window = torch.sin(math.pi / (2 * HOP) * (frame + 0.5))
    cosine = torch.cos(math.pi / HOP * (frame + 0.5 + HOP / 2) * (coefficient + 0.5))
    return (window * cosine * (2 / HOP) ** 0.5).float()


def lapped(
    frames: Float[Tensor, "batch frame channel height width"],
) -> Float[Tensor, "batch group coefficient channel height width"]:
    """Return the coefficients of every whole window: `frame / 4 - 1` groups.

    Raises:
        ValueError: the frames are not a multiple of four, or fewer than one window.
    """
    count = frames.shape[1]
    if count % HOP or count < 2 * HOP:
        raise ValueError(f"the lapped transform takes 8, 12, 16 ... frames, got {count}")
    hops = frames.unflatten(1, (-1, HOP))
    first, second = lapped_basis().to(frames).split(HOP, dim=1)
    early = torch.einsum("kn,bgnchw->bgkchw", first, hops[:, :-1])
    return early + torch.einsum("kn,bgnchw->bgkchw", second, hops[:, 1:])


def overlap_frames(
    coefficients: Float[Tensor, "batch group coefficient channel height width"],
) -> Float[Tensor, "batch frame channel height width"]:
    """Return the frames that lie under two windows: `4 (group - 1)`, from the second hop on."""
    first, second = lapped_basis().to(coefficients).split(HOP, dim=1)
    early = torch.einsum("kn,bgkchw->bgnchw", first, coefficients[:, 1:])
    late = torch.einsum("kn,bgkchw->bgnchw", second, coefficients[:, :-1])
    return (late + early).flatten(1, 2)


def with_margins(
    frames: Float[Tensor, "batch frame channel height width"],
) -> Float[Tensor, "batch padded channel height width"]:
    """Repeat the first and the last frame by one hop, and the last one up to a whole hop.

    `overlap_frames(lapped(with_margins(x)))` begins with all frames of `x`.
    """
    short = -frames.shape[1] % HOP
    first, last = frames[:, :1], frames[:, -1:]
    before = first.expand(-1, HOP, *first.shape[2:])
    after = last.expand(-1, HOP + short, *last.shape[2:])
    return torch.cat([before, frames, after], dim=1)


def reduced(
    images: Float[Tensor, "*axes height width"], factor: int
) -> Float[Tensor, "*axes lower narrower"]:
    """Return the mean of every `factor` x `factor` pixels."""
    flat = functional.avg_pool2d(images.flatten(0, -4), factor)
    return flat.unflatten(0, images.shape[:-3])


def enlarged(
    images: Float[Tensor, "*axes height width"], factor: int
) -> Float[Tensor, "*axes higher wider"]:
    """Return the images enlarged smoothly (bicubic)."""
    flat = functional.interpolate(images.flatten(0, -4), scale_factor=factor, mode="bicubic")
    return flat.unflatten(0, images.shape[:-3])
