"""One network that learns: with its objective, its optimizer and, if asked, its average."""

from dataclasses import dataclass

import torch
from torch import nn

from soundreel.training.ema import EMA
from soundreel.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Player:
    """A network under training. Most runs have one; an adversarial run has two.

    Args:
        name: file name of its weights in a checkpoint.
        network: its trainable parameters are those that require gradients.
        objective: what it minimises on each batch.
        ema: average to keep, or None.
    """

    name: str
    network: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    ema: EMA | None

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device


def make_player(
    name: str,
    network: nn.Module,
    objective: Objective,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    ema_decay: float = 0.0,
) -> Player:
    """A player with AdamW (default betas); `ema_decay` 0 keeps no average."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError(f"{name}: no parameter requires a gradient, there is nothing to train")
    return Player(
        name=name,
        network=network,
        objective=objective,
        optimizer=torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=weight_decay),
        ema=EMA(network, ema_decay) if ema_decay else None,
    )
