"""One network of a model folder: its configuration, and its weights on demand.

Files are of unknown origin. A configuration that does not fit the weights beside it is refused from
their header alone, before it can ask for memory.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.overrides import TorchFunctionMode

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.config_io import config_from_json
from soundreel.files import checksum, file_checksum, writing_file
from soundreel.json_yaml import read_checked_json

if TYPE_CHECKING:
    from soundreel.checkpoints.adapter import Adapter

Module = TypeVar("Module", bound=nn.Module)
Config = TypeVar("Config")
Shapes = Mapping[str, tuple[int, ...]]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SCALE = ".row_scale"  # of packed weights; see `packed`


@dataclass(frozen=True, kw_only=True)
class StoredComponent:
    """One component of a model folder: its configuration as it was read, its weights on demand.

    Attributes:
        folder: where it lies.
        config: plain values of `config.json`.
        checksum: CRC-32 of the weights file; empty in folders of older releases.
        adapter: low-rank products that the built network's weights get.
    """

    folder: Path
    config: Any
    checksum: str = ""
    adapter: "Adapter | None" = None

    @classmethod
    def read(cls, folder: Path, *, checksum: str = "") -> "StoredComponent":
        """Read the configuration of a component.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return cls(folder=folder, config=_read_config(folder / CONFIG_FILE), checksum=checksum)

    @property
    def weights(self) -> Path:
        """Return the weights file."""
        return self.folder / WEIGHTS_FILE

    def configuration(self, config_type: type[Config]) -> Config:
        """Return the configuration as a `config_type`.

        Raises:
            CheckpointError: it is none.
        """
        where = str(self.folder / CONFIG_FILE)
        return config_from_json(config_type, self.config, where, error=CheckpointError)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors, from the header of the weights alone.

        Raises:
            CheckpointError: the weights are missing or damaged.
        """
        with reading_tensors(self.weights), safe_open(self.weights, "pt") as file:
            names = [name for name in file.keys() if _is_own(name)]  # noqa: SIM118
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}

    def verify(self) -> None:
        """Compare the weights with their checksum, if there is one.

        Raises:
            CheckpointError: they are missing, or have changed since they were written.
        """
        with reading_tensors(self.weights):
            found = file_checksum(self.weights) if self.checksum else ""
        if found != self.checksum:
            raise CheckpointError(
                f"{self.weights}: damaged since it was written (its checksum is {found}, not "
                f"{self.checksum}); copy the model again"
            )

    def state(self) -> dict[str, Tensor]:
        """Read the state dict; packed or half-precision weights become float32.

        Raises:
            CheckpointError: the weights are missing or damaged, or hold values that are no numbers.
        """
        self.verify()
        with reading_tensors(self.weights):
            stored = load_file(self.weights)
            state = {name: _full(name, stored[name], stored) for name in stored if _is_own(name)}
        for name, value in state.items():
            # A sum tells nearly for free that all is well; only when it does not, look closer.
            if not bool(value.sum().isfinite()) and not bool(value.isfinite().all()):
                raise CheckpointError(
                    f"{self.weights}: {name} holds values that are not finite; the training that "
                    "made it failed, take an earlier checkpoint"
                )
        return state

    def build(
        self, build: Callable[[Any], Module], config_type: type[Config]
    ) -> tuple[Module, Config]:
        """Build the network, in evaluation mode; also return its configuration.

        Names and shapes are compared with the weights before any memory is taken.

        Args:
            build: makes the network from its configuration, usually the network's class.

        Raises:
            CheckpointError: a part is missing or damaged, or the weights do not fit the network.
        """
        config, where = self.configuration(config_type), str(self.weights)
        shapes = self.shapes()
        check_shapes(_expected_shapes(build, config, len(shapes), where), shapes, where)
        module = build(config)
        module.load_state_dict(self.state())
        if self.adapter is not None:
            self.adapter.merge_into(module)
        return module.eval(), config


def save_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file."""
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with writing_file(path) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def tensor_bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU."""
    return tensor.contiguous().numpy().reshape(-1).view("uint8").data


def tensors_checksum(tensors: Mapping[str, Tensor], start: int = 0) -> str:
    """Return the CRC-32 of tensors, their names, types and shapes; `start` is that before them."""
    for name in sorted(tensors):
        about = f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}"
        start = checksum(about.encode(), tensor_bytes(tensors[name]), start=start)
    return f"{start:08x}"


@contextmanager
def reading_tensors(path: Path) -> Iterator[None]:
    """Turn what reading a missing or damaged safetensors file raises into one line.

    Raises:
        CheckpointError: the file cannot be read.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found; its folder is incomplete")
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def check_state(own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes of a state dict with a network's own.

    Raises:
        CheckpointError: missing or surplus keys, or other shapes, by name.
    """
    check_shapes(_shapes_of(own), _shapes_of(state), where)


def _shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def check_shapes(own: Shapes, found: Shapes, where: str) -> None:
    """Compare names and shapes; see `check_state`."""
    missing = [key for key in own if key not in found]
    surplus = [key for key in found if key not in own]
    other = [
        f"{key} is {found[key]}, not {shape}"
        for key, shape in own.items()
        if key in found and found[key] != shape
    ]
    problems = [
        f"{len(names)} {word}: {listed(names)}"
        for word, names in (("missing", missing), ("surplus", surplus), ("of another shape", other))
        if names
    ]
    if problems:
        raise CheckpointError(f"{where}: tensors do not fit the network; {'; '.join(problems)}")


def _expected_shapes(
    build: Callable[[Any], nn.Module], config: Any, num_tensors: int, where: str
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's tensors, for which it takes no memory.

    Raises:
        CheckpointError: the configuration asks for more parameters than there are tensors.
    """

    def count(network: nn.Module, name: str, value: object) -> None:
        nonlocal num_left
        num_left -= value is not None
        if num_left < 0:
            raise CheckpointError(
                f"{where}: its {num_tensors} tensors are far fewer than the network of its "
                f"{CONFIG_FILE} has"
            )

    num_left = 4 * num_tensors + 64  # a few are registered and replaced
    hook = torch_module.register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), _WithoutRandomNumbers():
            state = build(config).state_dict()
    except (ValueError, RuntimeError, OverflowError, MemoryError, RecursionError) as error:
        raise CheckpointError(f"{where}: no network can be built for it ({error})") from error
    finally:
        hook.remove()
    return _shapes_of(state)


class _WithoutRandomNumbers(TorchFunctionMode):
    """Leave tensors as they are where random numbers would be drawn into them.

    For one on the meta device, PyTorch would import its compiler first: 1.7 s at every loading.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function unless it draws."""
        if func in (torch.nn.init.normal_, Tensor.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def _read_config(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: file not found; the model folder is incomplete")
    return read_checked_json(path, CheckpointError)


def _is_own(name: str) -> bool:
    return not name.endswith(SCALE)


def _full(name: str, value: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """Return a tensor in single precision, times the scales of its rows if it is packed."""
    scale = state.get(name + SCALE)
    if scale is not None:
        return value.float() * scale.float().view(-1, *(value.dim() - 1) * [1])
    return value.float() if value.dtype == torch.float16 else value
