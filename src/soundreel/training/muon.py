"""Muon for the matrices of a network's blocks and AdamW for everything else, as one optimizer."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

OPTIMIZERS = ("adamw", "muon")
MOMENTUM = 0.95
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration (Jordan et al. 2024)."""
ITERATIONS = 5
MIN_NORM = 1e-7
UPDATE_SIZE = 0.2
"""Root mean square of AdamW's updates, to which Muon's are scaled (Liu et al. 2025, equation 4)."""


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


def orthogonalized(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return the matrix with its singular values near 1 (0.7 to 1.2), in the precision of autocast.

    `torch.optim.Muon` does this in bfloat16 always, which takes a CPU without units for it 25
    times as long as float32: most of a training step.
    """
    a, b, c = POLYNOMIAL
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=MIN_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Step matrices along their orthogonalized momentum (Jordan et al. 2024).

    An update has the size of AdamW's, so that both can share a learning rate and a weight decay.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonalized(matrix.grad.lerp(momentum, MOMENTUM))
                size = UPDATE_SIZE * max(matrix.shape) ** 0.5
                matrix.mul_(1 - rate * decay).add_(update, alpha=-rate * size)


class MuonAdamW(torch.optim.Optimizer):
    """Step groups marked `muon` by Muon, and the others by AdamW."""

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
            self._parts.append(Muon(muon, {}))
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
