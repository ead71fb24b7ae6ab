"""Start the networks of a run from those of an earlier model: fine-tuning, `train --init MODEL`."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from soundreel.checkpoints.errors import listed
from soundreel.checkpoints.hub import DEFAULT_MODEL, DEFAULT_NAME, resolve_model
from soundreel.checkpoints.store import (
    ModelIndex,
    read_model,
    save_model_index,
    writing_folder,
)
from soundreel.config_io import ConfigError, load_json, save_json

logger = logging.getLogger(__name__)

Conversion = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Makes the weights of an earlier network those of one with, for example, other classes."""

INIT_FILE = "init.json"
LEAST_SHARE = 0.5
"""Least share of a network's numbers that an earlier one must give; below it is another
architecture."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Record of the model that a run starts from."""

    model: str


def initial_model(out: Path, init: str) -> "InitialModel | None":
    """Return the model that a run starts from: the one named, or the one it was begun with.

    Raises:
        ConfigError: the run in `out` was begun from another one, or from none.
        CheckpointError: there is no such model.
    """
    begun = (out / "config.json").exists()
    path = out / INIT_FILE
    before = load_json(Origin, path).model if path.exists() else ""
    if begun and init not in ("", before) and _lasting_name(init) != before:
        raise ConfigError(
            f"{out}: was begun from {before or 'nothing'}, not from {init}; leave out --init"
        )
    if init and not begun:
        return InitialModel(_lasting_name(init))
    if before:
        return InitialModel(before, DEFAULT_MODEL if before == DEFAULT_NAME else None)
    return None


def _lasting_name(init: str) -> str:
    """Return the name by which a run that goes on elsewhere, or later, finds its model again."""
    folder = Path(init).expanduser()
    return str(folder.absolute()) if folder.is_dir() else init


class InitialModel:
    """A model folder, or one of the Hub, whose networks a run starts from.

    Args:
        source: name of the model.
        path: its folder, where the name alone does not tell.

    Raises:
        CheckpointError: there is no such model.
    """

    def __init__(self, source: str | Path, path: Path | None = None) -> None:
        self.source = str(source)
        self.path = path or resolve_model(source)
        self._model = read_model(self.path)

    def has(self, component: str) -> bool:
        """Tell whether the model has a network of this name."""
        return component in self._model.components

    def kind(self, component: str) -> str:
        """Return the kind of a network, "" where the model has none of this name."""
        return self._model.index.components.get(component, "")

    def remember(self, out: Path) -> None:
        """Write down in the run's folder what it starts from, for resuming."""
        save_json(Origin(model=self.source), out / INIT_FILE)

    def copy(self, component: str, target: Path, name: str) -> None:
        """Store a network of the model as what a stage has left, under another name.

        Raises:
            CheckpointError: its weights are damaged.
        """
        self._model.component(component).verify()
        index = self._model.index
        with writing_folder(target) as temporary:
            shutil.copytree(self.path / component, temporary / name)
            kinds = {name: index.components[component]}
            save_model_index(temporary, ModelIndex(system=index.system, components=kinds))
        logger.info("%s is taken from %s as it is", component, self.source)

    def load_into(
        self,
        network: nn.Module,
        component: str,
        *,
        convert: Conversion | None = None,
        is_adapted: bool = False,
    ) -> None:
        """Copy every tensor of equal name and shape; log what the network keeps of its own.

        Args:
            component: name of the network in the model folder; a model without one is said.
            convert: makes of the model's tensors those to be copied.
            is_adapted: all of it must be the model's, since an adapter (LoRA) holds products alone.

        Raises:
            ConfigError: most of the network does not fit, so that it is another architecture; or
                any of it, where it is to be adapted.
            CheckpointError: the weights are damaged.
        """
        if not self.has(component):
            if is_adapted:
                raise ConfigError(
                    f"{self.source} has no {component} to adapt; name a model that has one"
                )
            logger.warning("%s has no %s: it starts as initialised", self.source, component)
            return
        state, own = self._model.component(component).state(), network.state_dict()
        state = state if convert is None else convert(state)
        fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        kept = [name for name in own if name not in fitting]
        share = sum(v.numel() for v in fitting.values()) / sum(v.numel() for v in own.values())
        if share < LEAST_SHARE or (kept and is_adapted):
            raise ConfigError(
                f"{self.source}: {share:.0%} of its {component} fits the network to train; "
                f"configure it alike (not there or of another shape: {listed(kept, 3)})"
                + (", since an adapter holds none of these" if is_adapted else "")
            )
        with torch.no_grad():
            network.load_state_dict({**own, **fitting})
        if kept:
            logger.warning(
                "%s from %s; left as initialised: %s", component, self.source, listed(kept)
            )
        else:
            logger.info("%s starts from %s", component, self.source)
