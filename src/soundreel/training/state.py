"""Everything a run needs to go on as if it had never stopped, as safetensors and JSON.

checkpoints/000025600/     samples seen so far
  state.json               counters, and checksums of the other files
  <trainee>.safetensors     a network's parameters
  <trainee>.ema.safetensors their averages
  <trainee>.optimizer.safetensors

Networks that are divided among processes leave `shard-*.safetensors` in place of these, one of each
process, which hold its shares of all tensors under `<trainee>/...`, `<trainee>.ema/...` and
`<trainee>.optimizer/...`. Either kind is read into whole and into divided networks.
"""

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from soundreel.checkpoints.component import check_state, reading_tensors
from soundreel.checkpoints.errors import CheckpointError
from soundreel.config_io import load_json, save_json
from soundreel.files import file_checksum, writing_file, writing_folder
from soundreel.training.ema import EMA
from soundreel.training.trainee import Trainee

FORMAT_VERSION = 2
"""1 counted the optimizer's parameters in the order of the modules, whatever its groups."""
SHARDED_VERSION = 3
"""That of shards, one of each process."""

STATE_FILE = "state.json"
_ADVICE = "remove this checkpoint's folder to go on from the one before"


@dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """The content of `state.json`; checkpoints of format 1 have neither version nor checksums."""

    samples_seen: int
    format_version: int = 1
    checksums: dict[str, str] = field(default_factory=dict)


def save_training_state(
    folder: Path, trainees: list[Trainee], samples_seen: int, keep: int, *, is_main: bool = True
) -> Path:
    """Write a checkpoint, then delete all but the newest `keep`.

    It appears whole or not at all; a crash leaves the last one as it was. A complete checkpoint at
    `samples_seen` is left as it is: a run resumes from its newest one, so that nothing can have
    been learned since.

    Args:
        is_main: this process writes what is whole; all must come here where a network is divided.

    Raises:
        FileError: it cannot be written; what was written of it is gone again.
    """
    target = folder / f"{samples_seen:09d}"
    sharded = any(trainee.sharded for trainee in trainees)
    with ExitStack() as stack:
        temporary = None
        if is_main and target not in list_checkpoints(folder):
            shutil.rmtree(target, ignore_errors=True)  # one without state.json, which nothing reads
            temporary = stack.enter_context(writing_folder(target))
        if sharded:
            _sharding().save_shards(_flat(_contents(trainees)), target, temporary)
        elif temporary is not None:
            for name, tensors in _contents(trainees).items():
                _save(tensors, temporary / f"{name}.safetensors")
        if temporary is not None:
            checksums = {path.name: file_checksum(path) for path in sorted(temporary.iterdir())}
            version = SHARDED_VERSION if sharded else FORMAT_VERSION
            state = CheckpointState(
                samples_seen=samples_seen, format_version=version, checksums=checksums
            )
            save_json(state, temporary / STATE_FILE)
    for old in list_checkpoints(folder)[:-keep] if is_main else ():
        (old / STATE_FILE).unlink()  # what is left after a kill is no checkpoint
        shutil.rmtree(old)
    return target


def _contents(trainees: list[Trainee]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a checkpoint by the names of its files."""
    contents = {}
    for trainee in trainees:
        contents[trainee.name] = trainee.network.state_dict()
        if trainee.ema is not None:
            contents[f"{trainee.name}.ema"] = trainee.ema.state_dict()
        contents[f"{trainee.name}.optimizer"] = _optimizer_state(trainee)
    return contents


def _flat(contents: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{file}/{key}": x for file, tensors in contents.items() for key, x in tensors.items()}


def list_checkpoints(folder: Path) -> list[Path]:
    """Return complete checkpoints, oldest first."""
    return sorted(p.parent for p in folder.glob(f"[0-9]*/{STATE_FILE}"))


def load_training_state(checkpoint: Path, trainees: list[Trainee]) -> int:
    """Restore the trainees from a checkpoint; return the samples seen.

    Raises:
        CheckpointError: a file is missing, damaged, or of another network.
    """
    state = verify_checkpoint(checkpoint)
    if state.format_version == SHARDED_VERSION:
        _load_shards(checkpoint, trainees)
        return state.samples_seen
    for trainee in trainees:
        _load(trainee, trainee.network, checkpoint / f"{trainee.name}.safetensors")
        if trainee.ema is not None:
            _load(trainee, trainee.ema, checkpoint / f"{trainee.name}.ema.safetensors")
        path = checkpoint / f"{trainee.name}.optimizer.safetensors"
        names = _module_order(trainee) if state.format_version == 1 else _optimizer_order(trainee)
        _load_optimizer_state(trainee, _read(path), names, str(path))
    return state.samples_seen


def _load_shards(checkpoint: Path, trainees: list[Trainee]) -> None:
    stored = _sharding().stored_shapes(checkpoint)
    contents = _contents(trainees)
    for trainee in trainees:
        prefix, parameters = f"{trainee.name}.optimizer/", dict(trainee.network.named_parameters())
        moments = contents[prefix[:-1]] = {}
        for key in (key.removeprefix(prefix) for key in stored if key.startswith(prefix)):
            name = key.rpartition("|")[0]
            if name in parameters:
                has_shape = bool(stored[prefix + key])
                moments[key] = torch.zeros_like(parameters[name]) if has_shape else torch.zeros(())
    _sharding().load_shards(checkpoint, _flat(contents))
    for trainee in trainees:
        moments, names = contents[f"{trainee.name}.optimizer"], _optimizer_order(trainee)
        _load_optimizer_state(trainee, moments, names, str(checkpoint))


def verify_checkpoint(checkpoint: Path) -> CheckpointState:
    """Read a checkpoint's state and compare its files with their checksums.

    Raises:
        CheckpointError: a file is missing, or has changed since it was written.
    """
    path = checkpoint / STATE_FILE
    state = load_json(CheckpointState, path, error=CheckpointError)
    is_known = state.format_version in (1, FORMAT_VERSION, SHARDED_VERSION)
    if not is_known or state.samples_seen != int(checkpoint.name):
        raise CheckpointError(f"{path}: damaged, or of another release; {_ADVICE}")
    for name, expected in state.checksums.items():
        file = checkpoint / name
        if Path(name).name != name or not file.is_file() or file_checksum(file) != expected:
            raise CheckpointError(f"{file}: missing, or damaged since it was written; {_ADVICE}")
    return state


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


def _load_optimizer_state(
    trainee: Trainee, tensors: dict[str, Tensor], names: list[str], where: str
) -> None:
    parameters = dict(trainee.network.named_parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("|")
        if name not in names or (tensor.dim() and tensor.shape != parameters[name].shape):
            raise CheckpointError(f"{where}: {key} does not fit the network; {_ADVICE}")
        if tensor.dim():  # in the parameter's own order in memory, which fused AdamW relies on
            own = torch.empty_like(parameters[name], dtype=tensor.dtype)
            tensor = own.copy_(_divided(tensor, own, trainee))
        state.setdefault(names.index(name), {})[slot] = tensor
    whole = trainee.optimizer.state_dict()
    trainee.optimizer.load_state_dict({**whole, "state": state})


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    with writing_file(path) as temporary:
        save_file({k: v.detach().contiguous().cpu() for k, v in tensors.items()}, temporary)


def _load(trainee: Trainee, network: nn.Module | EMA, path: Path) -> None:
    state = _read(path)
    own = network.state_dict()
    check_state(own, state, str(path))
    network.load_state_dict({k: _divided(state[k], own[k], trainee) for k in own})


def _divided(tensor: Tensor, like: Tensor, trainee: Trainee) -> Tensor:
    return _sharding().divided(tensor, like) if trainee.sharded else tensor


def _sharding() -> ModuleType:
    """Import what only divided networks need; it takes a second."""
    from soundreel.training import sharding

    return sharding


def _read(path: Path) -> dict[str, Tensor]:
    with reading_tensors(path):
        return load_file(path)
