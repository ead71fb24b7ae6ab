"""Bicubic resizing as the Python Imaging Library does it, on 8-bit pixels and on floats.

MM-LDM stretches its mel pictures with that library; its 8-bit arithmetic (fixed-point weights, one
rounding for each axis) is repeated here exactly, so that pictures do not depend on its presence.
"""

from functools import cache

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

# Fixed-point weights have 22 fractional bits: 32 less 8 of the pixel and 2 of headroom.
FRACTION = 2**22


@cache
@torch.inference_mode(mode=False)  # what is kept must also serve training
def bicubic_weights(in_size: int, out_size: int) -> Float64[Tensor, "out in"]:
    """Weight of every input pixel in every output pixel along one axis; rows sum to 1.

    Shrinking widens the kernel, so that no input pixel is skipped. Keys' kernel with a = -0.5.
    """
    scale = in_size / out_size
    stretch = max(scale, 1.0)
    on_cpu = {"dtype": torch.float64, "device": "cpu"}
    centre = (torch.arange(out_size, **on_cpu)[:, None] + 0.5) * scale
    pixel = torch.arange(in_size, **on_cpu)[None]
    first = (centre - 2 * stretch + 0.5).trunc().clamp(min=0)
    end = (centre + 2 * stretch + 0.5).trunc()
    weights = _cubic((pixel - centre + 0.5) / stretch)
    weights = torch.where((pixel >= first) & (pixel < end), weights, 0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def _cubic(x: Float64[Tensor, "out in"]) -> Float64[Tensor, "out in"]:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resize_uint8(
    picture: UInt8[Tensor, "*batch height width"], height: int, width: int
) -> UInt8[Tensor, "*batch out_height out_width"]:
    """Resize 8-bit pictures, first the width, then the height, each rounded to 8 bits.

    Pillow up to version 12, which published mel images were made with, does the same; version 13
    begins with the height where it shrinks and the width grows, and differs by a few levels there.
    """
    x = picture.double()  # all integers below 2^53: float64 is exact
    for axis, size in ((-1, width), (-2, height)):
        if x.shape[axis] != size:
            x = _weigh(x.transpose(axis, -1), bicubic_weights(x.shape[axis], size))
            x = x.transpose(axis, -1)
    return x.to(torch.uint8)


def _weigh(x: Float64[Tensor, "*batch in"], weights: Float64[Tensor, "out in"]) -> Tensor:
    scaled = weights.to(x.device) * FRACTION
    fixed = torch.where(scaled < 0, scaled - 0.5, scaled + 0.5).trunc()
    return ((x @ fixed.T + FRACTION // 2) / FRACTION).floor().clamp(0, 255)


def resize(
    picture: Float[Tensor, "*batch height width"], height: int, width: int
) -> Float[Tensor, "*batch out_height out_width"]:
    """Resize float pictures with the same kernel and no rounding; values may overshoot."""
    rows = bicubic_weights(picture.shape[-2], height).to(picture)
    columns = bicubic_weights(picture.shape[-1], width).to(picture)
    return rows @ picture @ columns.T
