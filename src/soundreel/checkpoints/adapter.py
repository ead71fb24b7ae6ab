"""Low-rank adapters in the files of `peft`: written, read, and added to a model's weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from soundreel.checkpoints.component import check_shapes, reading_tensors, tensors_checksum
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.lora import LoRAConfig, adapted
from soundreel.checkpoints.store import ModelFolder
from soundreel.files import checksum, writing_file, writing_folder
from soundreel.json_yaml import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_VARIANTS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")


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
    for name in adapted(network):
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
    metadata = {"format": "pt", "component": component}
    metadata["checksum"] = _checksum(tensors, component, values)
    with writing_folder(folder, marker=ADAPTER_CONFIG) as temporary:
        with writing_file(temporary / ADAPTER_WEIGHTS) as path:
            save_file(tensors, path, metadata=metadata)
        (temporary / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2) + "\n")


def _checksum(tensors: Mapping[str, Tensor], component: str, values: dict[str, Any]) -> str:
    """Return the CRC-32 of an adapter, for the metadata of its weights."""
    about = [component, values.get("r"), values.get("lora_alpha")]
    return tensors_checksum(tensors, checksum(json.dumps(about).encode()))


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
            metadata = file.metadata() or {}
            component = metadata.get("component", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        products = _pairs(tensors, rank, weights)
        if metadata.get("checksum", "") not in ("", _checksum(tensors, component, values)):
            raise CheckpointError(
                f"{folder}: the adapter is damaged since it was written; copy it again"
            )
        return cls(
            folder=folder,
            rank=rank,
            alpha=alpha,
            component=component,
            model=str(values.get("base_model_name_or_path") or ""),
            products=products,
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
    names = [
        name.removeprefix(_PREFIX).removesuffix(ending)
        for name in tensors
        if name.startswith(_PREFIX) and name.endswith(ending)
    ]
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
