"""Everything a run needs to go on as if it had never stopped, as safetensors and JSON.

checkpoints/000025600/     samples seen so far
  state.json               counters
  <trainee>.safetensors     a network's parameters
  <trainee>.ema.safetensors their averages
  <trainee>.optimizer.safetensors
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soundreel.errors import SoundreelError
from soundreel.files import write_text, writing_file, writing_folder
from soundreel.json_yaml import read_json
from soundreel.training.trainee import Trainee

FORMAT_VERSION = 2
"""1 counted the optimizer's parameters in the order of the modules, whatever its groups."""

STATE_FILE = "state.json"


def save_training_state(
    folder: Path, trainees: list[Trainee], samples_seen: int, keep: int
) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`.

    It appears whole or not at all; a crash leaves the last one as it was. A complete checkpoint at
    `samples_seen` is left as it is: a run resumes from its newest one, so that nothing can have
    been learned since.

    Raises:
        FileError: it cannot be written; what was written of it is gone again.
    """
    target = folder / f"{samples_seen:09d}"
    if target in list_checkpoints(folder):
        return target
    shutil.rmtree(target, ignore_errors=True)  # one without state.json, which nothing reads
    with writing_folder(target) as temporary:
        for trainee in trainees:
            _save(trainee.network.state_dict(), temporary / f"{trainee.name}.safetensors")
            if trainee.ema is not None:
                _save(trainee.ema.state_dict(), temporary / f"{trainee.name}.ema.safetensors")
            _save(_optimizer_state(trainee), temporary / f"{trainee.name}.optimizer.safetensors")
        state = {"samples_seen": samples_seen, "format_version": FORMAT_VERSION}
        write_text(temporary / STATE_FILE, json.dumps(state) + "\n")
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Return complete checkpoints, oldest first."""
    return sorted(p.parent for p in folder.glob(f"[0-9]*/{STATE_FILE}"))


def load_training_state(checkpoint: Path, trainees: list[Trainee]) -> int:
    """Restore the trainees from a checkpoint; return the samples seen."""
    state = read_json(checkpoint / STATE_FILE, SoundreelError)
    by_module = state.get("format_version", 1) == 1
    for trainee in trainees:
        trainee.network.load_state_dict(load_file(checkpoint / f"{trainee.name}.safetensors"))
        if trainee.ema is not None:
            trainee.ema.load_state_dict(load_file(checkpoint / f"{trainee.name}.ema.safetensors"))
        tensors = load_file(checkpoint / f"{trainee.name}.optimizer.safetensors")
        names = _module_order(trainee) if by_module else _optimizer_order(trainee)
        _load_optimizer_state(trainee, tensors, names)
    return int(state["samples_seen"])


def _optimizer_order(trainee: Trainee) -> list[str]:
    """Return the names of the trained parameters as the optimizer numbers them: group by group."""
    names = {id(p): name for name, p in trainee.network.named_parameters()}
    groups = trainee.optimizer.param_groups
    return [names[id(p)] for group in groups for p in group["params"]]


def _module_order(trainee: Trainee) -> list[str]:
    """Return the names that checkpoints of format 1 gave to the optimizer's numbers."""
    return [name for name, p in trainee.network.named_parameters() if p.requires_grad]


def _optimizer_state(trainee: Trainee) -> dict[str, Tensor]:
    """Return the optimizer's tensors under `parameter|slot`, in place of its numbers."""
    names = _optimizer_order(trainee)
    state = trainee.optimizer.state_dict()["state"]
    return {
        f"{name}|{slot}": torch.as_tensor(value)
        for index, name in enumerate(names)
        for slot, value in state.get(index, {}).items()
    }


def _load_optimizer_state(trainee: Trainee, tensors: dict[str, Tensor], names: list[str]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("|")
        state.setdefault(names.index(name), {})[slot] = tensor
    whole = trainee.optimizer.state_dict()
    trainee.optimizer.load_state_dict({**whole, "state": state})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with writing_file(path) as temporary:
        save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, temporary)
