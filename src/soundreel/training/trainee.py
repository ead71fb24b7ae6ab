"""One network that learns: with its objective, its optimizer and, if asked, its average."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from soundreel.errors import SoundreelError
from soundreel.training.ema import EMA
from soundreel.training.muon import MuonAdamW, block_matrices
from soundreel.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A network under training. Most stages have one; an adversarial stage has two.

    Args:
        name: file name of its weights in a checkpoint.
        network: its trainable parameters are those that require gradients.
        objective: what it minimises on each batch.
        ema: average to keep, or None.
        sharded: network, optimizer and average are divided among the processes.
    """

    name: str
    network: nn.Module
    objective: Objective
    optimizer: torch.optim.Optimizer
    ema: EMA | None
    sharded: bool = False

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device


def make_trainee(
    name: str,
    network: nn.Module,
    objective: Objective,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    ema_decay: float = 0.0,
    rate_shares: Mapping[str, float] | None = None,
    muon: bool = False,
    sharded: bool = False,
) -> Trainee:
    """Return a trainee with AdamW (default betas); `ema_decay` 0 keeps no average.

    Args:
        muon: the matrices of its blocks learn by Muon instead.
        rate_shares: for parts of the network by name ("decoder.conv_out"), the factor on the
            learning rate that their parameters learn at; all others learn at the rate itself.
        sharded: the network has been divided among the processes.

    Raises:
        SoundreelError: a part that does not exist, or no parameter requires a gradient.
    """
    matrices: set[Tensor] = block_matrices(network) if muon else set()
    trainable = _parameter_groups(network, rate_shares or {}, matrices)
    if not trainable:
        raise SoundreelError(f"{name}: no parameter requires a gradient, there is nothing to train")
    rates = {"lr": learning_rate, "weight_decay": weight_decay}
    # One kernel for all parameters, where there is one; else one for each operation.
    fused = {p.device.type for g in trainable for p in g["params"]} <= {"cpu", "cuda"}
    optimizer = (
        MuonAdamW(trainable, fused=fused, **rates)
        if muon
        else torch.optim.AdamW(trainable, fused=fused, foreach=not fused, **rates)
    )
    return Trainee(
        name=name,
        network=network,
        objective=objective,
        optimizer=optimizer,
        ema=EMA(network, ema_decay) if ema_decay else None,
        sharded=sharded,
    )


def _parameter_groups(
    network: nn.Module, shares: Mapping[str, float], matrices: set[Tensor]
) -> list[dict[str, Any]]:
    """Return the optimizer's groups, one per share of the learning rate and kind of step.

    A group keeps its share as `rate_share`; `muon` marks those of `matrices`.
    """
    unknown = set(shares) - {name for name, _ in network.named_modules()}
    if unknown:
        raise SoundreelError(f"the network has no part named {', '.join(sorted(unknown))}")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            share = next((shares[part] for part in shares if name.startswith(f"{part}.")), 1.0)
            groups.setdefault((share, parameter in matrices), []).append(parameter)
    return [
        {"params": members, "rate_share": share} | ({"muon": True} if of_muon else {})
        for (share, of_muon), members in groups.items()
    ]
