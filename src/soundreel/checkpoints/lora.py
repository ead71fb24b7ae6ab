"""Adapt a trained network by low-rank products beside its weights (LoRA); files as `peft` has them.

A weight W of `out` rows is used as W + (alpha / rank) B A, with A of `rank` rows and B of `out`
rows; only A and B learn. Convolutions' weights count as matrices of `out` rows.

The product is added to the weight, not to a layer's output: networks here also use weights without
calling the layer that holds them. Both are the same sum.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from soundreel.checkpoints.component import check_shapes, reading_tensors
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import ModelFolder
from soundreel.errors import SoundreelError
from soundreel.files import writing_file, writing_folder
from soundreel.json_yaml import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_VARIANTS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")
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


def save_lora(
    network: nn.Module,
    state: Mapping[str, Tensor],
    config: LoRAConfig,
    folder: Path,
    *,
    component: str,
    model: str,
) -> None:
    """Write an adapter as `peft` does: its configuration, and the products' matrices.

    Args:
        state: of the network, or an average of it.
        component: name of the network in a model folder.
        model: the model that was adapted, as the user named it.
    """
    tensors = {}
    for name, _ in _adapted(network):
        shape = state[f"{name}.parametrizations.weight.original"].shape
        key = f"{name}.parametrizations.weight.0."
        a, b = state[f"{key}lora_A"].cpu(), state[f"{key}lora_B"].cpu()
        ones = [1] * (len(shape) - 2)
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = a.reshape(config.rank, *shape[1:]).contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = b.reshape(*b.shape, *ones).contiguous()
    values = {
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": config.alpha or config.rank,
        "target_modules": adapted(network),
        "bias": "none",
        "inference_mode": True,
        "base_model_name_or_path": model,
    }
    with writing_folder(folder, marker=ADAPTER_CONFIG) as temporary:
        with writing_file(temporary / ADAPTER_WEIGHTS) as path:
            save_file(tensors, path, metadata={"format": "pt", "component": component})
        (temporary / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter's folder as it was read.

    Attributes:
        component: network of a model folder that it belongs to; empty if the file does not say.
        model: what it was trained on, in the words of whoever trained it.
    """

    folder: Path
    rank: int
    alpha: float
    component: str
    model: str
    products: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def read(cls, folder: Path) -> "Adapter":
        """Read an adapter.

        Raises:
            CheckpointError: the folder holds none, a damaged one, or another kind than plain LoRA.
        """
        folder = Path(folder)
        path = folder / ADAPTER_CONFIG
        if not path.is_file():
            raise CheckpointError(f"{folder}: no adapter here ({ADAPTER_CONFIG} is missing)")
        values = read_json(path, CheckpointError)
        rank, alpha = _numbers(values, path)
        weights = folder / ADAPTER_WEIGHTS
        with reading_tensors(weights), safe_open(weights, "pt") as file:
            component = (file.metadata() or {}).get("component", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls(
            folder=folder,
            rank=rank,
            alpha=alpha,
            component=component,
            model=str(values.get("base_model_name_or_path") or ""),
            products=_pairs(tensors, rank, weights),
        )

    @torch.no_grad()
    def merge_into(self, network: nn.Module) -> None:
        """Add the products to the weights of a network.

        Raises:
            CheckpointError: the network has no such weights, or of other shapes.
        """
        own = dict(network.named_parameters())
        where = str(self.folder / ADAPTER_WEIGHTS)
        found = {f"{n}.weight": (b.shape[0], *a.shape[1:]) for n, (a, b) in self.products.items()}
        check_shapes({n: tuple(own[n].shape) for n in found if n in own}, found, where)
        for name, (a, b) in self.products.items():
            weight = own[f"{name}.weight"]
            product = b.flatten(1).float() @ a.flatten(1).float()
            weight += (self.alpha / self.rank * product).view(weight.shape).to(weight)


def with_adapter(model: ModelFolder, folder: str | Path) -> ModelFolder:
    """Return a model whose network gets an adapter's products when it is built.

    An adapter that does not name its network is that of a model's only one.

    Raises:
        CheckpointError: there is no such adapter, it does not name one of several networks, or the
            model has no such network.
    """
    adapter = Adapter.read(Path(folder))
    name = adapter.component
    if not name and len(model.components) == 1:
        (name,) = model.components
    if not name:
        raise CheckpointError(
            f"{folder}: does not name its network among {', '.join(model.components)}; put it into "
            f"the metadata of {ADAPTER_WEIGHTS} as `component`"
        )
    part = replace(model.component(name), adapter=adapter)
    return replace(model, components={**model.components, name: part})


def _numbers(values: Any, path: Path) -> tuple[int, float]:
    """Return rank and alpha of an adapter's configuration."""
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: describes no LoRA adapter")
    variants = [name for name in _VARIANTS if values.get(name)]
    if variants or values.get("bias", "none") != "none":
        raise CheckpointError(
            f"{path}: uses {', '.join(variants) or 'bias'}; only plain LoRA is read"
        )
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
        raise CheckpointError(f"{path}: r and lora_alpha must be numbers, got {rank!r}, {alpha!r}")
    return rank, float(alpha)


def _pairs(
    tensors: Mapping[str, Tensor], rank: int, where: Path
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A and B of each adapted module."""
    ending = ".lora_A.weight"
    names = [n.removeprefix(_PREFIX).removesuffix(ending) for n in tensors if n.endswith(ending)]
    products = {}
    for name in names:
        a = tensors[f"{_PREFIX}{name}{ending}"]
        b = tensors.get(f"{_PREFIX}{name}.lora_B.weight")
        if b is None or a.dim() < 2 or a.shape[0] != rank or b[0].numel() != rank:
            raise CheckpointError(f"{where}: {name} has no two matrices of rank {rank}")
        if not (a.isfinite().all() and b.isfinite().all()):
            raise CheckpointError(f"{where}: {name} holds values that are not finite")
        products[name] = (a, b)
    if not products or len(tensors) != 2 * len(products):
        raise CheckpointError(f"{where}: holds other tensors than the matrices of LoRA")
    return products


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
