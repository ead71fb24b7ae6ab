"""Muon for the matrices of a network's blocks and AdamW for everything else, as one optimizer."""

from typing import Any

import torch
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "muon")


def block_matrices(network: nn.Module) -> set[Tensor]:
    """Return the weights of linear layers within lists of blocks, which Muon is made for.

    Source:
        Jordan et al. 2024 (Muon): matrices of hidden layers; what embeds or is the first or last
        layer stays with AdamW.
    """
    return {
        layer.weight
        for blocks in network.modules()
        if isinstance(blocks, nn.ModuleList)
        for layer in blocks.modules()
        if isinstance(layer, nn.Linear) and layer.weight.requires_grad
    }


class MuonAdamW(torch.optim.Optimizer):
    """Step groups marked `muon` by `torch.optim.Muon`, and the others by AdamW.

    Muon's update has the size of AdamW's (Liu et al. 2025, equation 4), so that both share a
    learning rate and a weight decay.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float, weight_decay: float, fused: bool
    ) -> None:
        self._fused = fused
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "muon": False})
        self._begin()

    def _begin(self) -> None:
        """Hand the groups and their state to the two optimizers, which work on these very ones."""
        chosen = [[g for g in self.param_groups if g["muon"] == flag] for flag in (True, False)]
        muon, adamw = chosen
        self._parts: list[torch.optim.Optimizer] = []
        if muon:
            self._parts.append(torch.optim.Muon(muon, adjust_lr_fn="match_rms_adamw"))
        if adamw:
            self._parts.append(torch.optim.AdamW(adamw, fused=self._fused))
        for part in self._parts:
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._begin()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None
        for part in self._parts:
            part.step()
