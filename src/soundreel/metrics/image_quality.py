"""Measure how close pictures are to those they should be."""

import torch
from jaxtyping import Float
from torch import Tensor


def psnr_db(
    images: Float[Tensor, "batch channel height width"],
    reference: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, " batch"]:
    """Compute the peak signal-to-noise ratio of each image in decibels; infinite for equal images.

    Both are in [-1, 1], so the peak-to-peak value is 2.
    """
    error = (images - reference).double().square().flatten(1).mean(dim=1)
    return (10 * torch.log10(4.0 / error)).to(images.dtype)
