"""Cosines over the frames of a clip."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def cosine_waves(count: int) -> Float[Tensor, "frame coefficient"]:
    """Return orthonormal cosines over `count` frames, all but the constant one."""
    place, frequency = torch.arange(count).double() + 0.5, torch.arange(1, count).double()
    waves = (math.pi / count * place[:, None] * frequency).cos()
    return ((2 / count) ** 0.5 * waves).float()
