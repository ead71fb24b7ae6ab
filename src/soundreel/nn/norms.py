"""Group normalisation that accepts any channel count."""

from torch import nn


def group_norm(channels: int, *, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm with min(32, channels) groups, or the next smaller number that divides."""
    groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=eps)
