"""Sinusoidal embeddings of a number, and the two-layer map that usually follows."""

import math
from typing import TypeVar

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from soundreel.nn.linear import Linear

Module = TypeVar("Module", bound=nn.Module)


def sinusoidal_embedding(
    position: Num[Tensor, " batch"], dim: int, max_period: float = 10_000.0
) -> Float[Tensor, "batch {dim}"]:
    """Return cosines, then sines, of `position` at frequencies 1 to almost 1/max_period.

    An odd `dim` ends with one column of zeros. Computed in float32.

    Source:
        Vaswani et al. 2017, section 3.5, with cosines first and frequencies
        max_period^(-k / (dim // 2)), as in the diffusion U-Nets this project rebuilds.
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=position.device) / half
    angle = position.float()[:, None] * torch.exp(-math.log(max_period) * exponent)
    embedding = torch.cat([angle.cos(), angle.sin()], dim=-1)  # b d
    return functional.pad(embedding, (0, dim - 2 * half))


class TwoLayerMLP(nn.Module):
    """Linear, SiLU, Linear on the last axis.

    Args:
        zero_init: `"none"`, `"last"` (the map starts at zero and can learn) or `"both"`. With both
            layers zero every weight gradient is exactly zero, so only the last bias ever moves: it
            exists to reproduce MM-LDM's published initialisation and to show that it is dead.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, out_dim: int, *, zero_init: str = "none"
    ) -> None:
        super().__init__()
        if zero_init not in ("none", "last", "both"):
            raise ValueError(f"zero_init is 'none', 'last' or 'both', got {zero_init!r}")
        self.first = Linear(in_dim, hidden_dim)
        self.last = Linear(hidden_dim, out_dim)
        if zero_init in ("last", "both"):
            zero_parameters(self.last)
        if zero_init == "both":
            zero_parameters(self.first)

    def forward(self, x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes out_dim"]:
        return self.last(functional.silu(self.first(x)))


def zero_parameters(module: Module) -> Module:
    """Set every parameter of a module to zero, so that the path it ends starts silent."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    return module
