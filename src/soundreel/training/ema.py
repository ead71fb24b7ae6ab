"""Exponential moving average of a network's parameters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """Averaged copy of the parameters, starting from their initial values.

    Args:
        decay: share of the old average kept at each step, in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {decay}")
        self._average = get_ema_multi_avg_fn(decay)
        self._parameters = dict(network.named_parameters())
        kept = network.state_dict().keys()  # without buffers that are made anew with the network
        self._buffers = {name: b for name, b in network.named_buffers() if name in kept}
        self.averages = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update: average = decay * average + (1 - decay) * parameter."""
        current = [p.detach() for p in self._parameters.values()]
        self._average(list(self.averages.values()), current, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return a state dict the network can load: averaged parameters and the current buffers."""
        return {**self.averages, **{name: b.detach() for name, b in self._buffers.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, average in self.averages.items():
            average.copy_(state[name])
