"""Adapt a trained network by low-rank products beside its weights (LoRA).

A weight W of `out` rows is used as W + (alpha / rank) B A, with A of `rank` rows and B of `out`
rows; only A and B learn. Convolutions' weights count as matrices of `out` rows.

The product is added to the weight, not to a layer's output: networks here also use weights without
calling the layer that holds them. Both are the same sum.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from soundreel.errors import SoundreelError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRAConfig:
    """Say how a network is adapted in place of being trained whole.

    Attributes:
        rank: of the products that learn; 0 trains the whole network.
        alpha: the products are multiplied by alpha / rank; 0 takes the rank, so by 1.
        targets: "linear": linear maps and convolutions of width 1, as attention has; "all": every
            convolution, too.
    """

    rank: int = 0
    alpha: float = 0.0
    targets: Literal["linear", "all"] = "linear"

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha < 0:
            raise SoundreelError(
                f"lora.rank and lora.alpha must not be negative, got {self.rank} and {self.alpha}"
            )
        if self.alpha and not self.rank:
            raise SoundreelError("lora.alpha scales products of lora.rank: set the rank too")

    @property
    def scale(self) -> float:
        """Return the factor on the products."""
        return (self.alpha or self.rank) / self.rank


class LowRank(nn.Module):
    """Add the scaled product of two matrices to a weight; nothing at first, since B is 0."""

    def __init__(self, weight: Tensor, config: LoRAConfig) -> None:
        super().__init__()
        self.scale = config.scale
        out, width = weight.flatten(1).shape
        self.lora_A = nn.Parameter(weight.new_empty(config.rank, width))
        self.lora_B = nn.Parameter(weight.new_zeros(out, config.rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, weight: Float[Tensor, "out *axes"]) -> Float[Tensor, "out *axes"]:
        """Return the weight that the network uses."""
        return weight + self.scale * (self.lora_B @ self.lora_A).view(weight.shape)


def add_lora(
    network: nn.Module, config: LoRAConfig, names: list[str] | None = None, *, seed: int = 0
) -> None:
    """Give the weights of a network low-rank products, and freeze all else; with rank 0 do nothing.

    Args:
        names: of the modules whose weights get them; None: those of `config.targets` that are not
            frozen.
        seed: of the products' first values.

    Raises:
        SoundreelError: there is no such weight.
    """
    if not config.rank:
        return
    names = _targets(network, config) if names is None else names
    if not names:
        raise SoundreelError(
            f"lora.targets={config.targets!r}: the network has no such weight to adapt; "
            "set lora.targets to all, or lora.rank to 0"
        )
    network.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name in names:
            module = network.get_submodule(name)
            low_rank = LowRank(network.get_parameter(f"{name}.weight"), config)
            parametrize.register_parametrization(module, "weight", low_rank)


def adapted(network: nn.Module) -> list[str]:
    """Return the names of the modules whose weights have low-rank products."""
    return [name for name, _ in _adapted(network)]


def merge_lora(network: nn.Module) -> None:
    """Make the sums the network's weights, under their old names; the products are gone."""
    for _, module in list(_adapted(network)):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def _targets(network: nn.Module, config: LoRAConfig) -> list[str]:
    return [
        name
        for name, module in network.named_modules()
        if name and _is_target(module, config) and module.weight.requires_grad
    ]


def _is_target(module: nn.Module, config: LoRAConfig) -> bool:
    if isinstance(module, _CONVOLUTIONS):
        is_wanted = config.targets == "all" or math.prod(module.kernel_size) == 1
        return is_wanted and module.groups == 1
    return isinstance(module, nn.Linear)


def _adapted(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in network.named_modules():
        if isinstance(module, parametrize.ParametrizationList) and isinstance(module[0], LowRank):
            owner = name.removesuffix(".parametrizations.weight")
            yield owner, network.get_submodule(owner)
