"""Interfaces of systems to shared code: `System`, `Stage`, `Pipeline`, `Upscaler`, and their
options.

A system is one folder (or one file) below `systems/` that ends in `SYSTEM = System(...)`, and one
line of the registry in `systems/__init__.py`. Command line, web page, evaluation and demo read what
is declared here and know no system by name.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8

from soundreel.checkpoints.store import ModelFolder
from soundreel.clip import Clip
from soundreel.data.options import Recipe
from soundreel.errors import SoundreelError
from soundreel.types import AV, ClipSpec

Options = TypeVar("Options")
Progress = Callable[[int, int], None]
"""`progress(done, total)` after each sampling step of each batch. Raise in it to stop."""

Tracker = Callable[[Mapping[str, float]], None]
"""Receives one dictionary of numbers per log line of a training run."""


@runtime_checkable
class LiveTracker(Protocol):
    """A tracker that hears of every step, too."""

    def __call__(self, numbers: Mapping[str, float], /) -> None: ...

    def step(self, done: int, total: int) -> None:
        """Take note that `done` of `total` samples are seen, or windows prepared for a stage."""
        ...


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a training run.

    Attributes:
        name: as in `soundreel train --stages NAME`.
        total_samples: training samples that finish it; 0 for a stage that is not trained.
        folder: where its log and checkpoints lie within the run; "" is the run's own folder.
        component: name in a model folder of the network it trains, which `--init` starts it from.
    """

    name: str
    total_samples: int
    folder: str = ""
    component: str = ""


class TrainWords(TypedDict, total=False):
    """Say how a run is trained; see `train_stages`."""

    resume: bool
    stages: Sequence[str]
    init: str
    device: str | None
    trackers: Callable[[], list[Tracker]]


@runtime_checkable
class TrainFunction(Protocol):
    """Train a configuration of the system on a prepared data set and leave `out/model`."""

    def __call__(self, config: Any, data: Path, out: Path, **how: Unpack[TrainWords]) -> bool:
        """Return whether all stages that were asked for are finished; False after a stop."""
        ...


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Read weights of another code base into a model folder.

    Attributes:
        options: frozen dataclass of what the files do not tell; its fields become flags.
        read: (files, folder to make, options) -> lines that say what became of each file.
    """

    summary: str
    options: type
    read: Callable[[Sequence[Path], Path, Any], list[str]]


@dataclass(frozen=True, kw_only=True)
class System:
    """A kind of model: how it is configured, trained, opened, imported and exported.

    Attributes:
        name: as in `model_index.json`, in a configuration's `system`, and before its presets.
        config_type: frozen dataclass of a training run.
        presets: functions that return such a configuration, by preset name.
        stages: of a configuration, in order.
        load: opens a model folder as a `Pipeline` (an `Upscaler` where `upscales`), on a device.
        options: dataclass of what `generate` (or `upscale_clip`) takes besides the request itself;
            its fields are made by `option`.
        upscales: the system enlarges clips instead of generating them.
        components: kinds of network that a folder must hold to be opened; one folder may hold the
            networks of a system that generates and of one that upscales.
        importers: by name on the command line.
        recipes: of public data sets as its papers prepare them, by name on the command line.
        export: (model folder, target folder) -> files written, in the original's own format.
    """

    name: str
    config_type: type
    presets: Mapping[str, Callable[[], Any]]
    stages: Callable[[Any], tuple[Stage, ...]]
    train: TrainFunction
    load: Callable[[ModelFolder, torch.device], Any]
    options: type
    upscales: bool = False
    components: frozenset[str] = frozenset()
    importers: Mapping[str, Importer] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    export: Callable[[Path, Path], list[Path]] | None = None


@runtime_checkable
class Pipeline(Protocol):
    """A model that generates clips; `systems/<name>/pipeline.py` implements it.

    Attributes:
        clip: sizes and rates of its clips.
        class_names: of the classes it can be asked for, in the order of their labels; empty for a
            model without classes.
        conditions: what `generate` can be given, among "video", "audio", "label", "text" and
            "after" (a clip to go on from).
        options: the model's own sampling defaults, an instance of its system's `options`; None
            for a model that only encodes and decodes.
    """

    clip: ClipSpec

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def conditions(self) -> frozenset[str]: ...
    @property
    def options(self) -> Any: ...
    @property
    def device(self) -> torch.device: ...

    def generate(
        self,
        *,
        count: int = 1,
        seed: int = 0,
        video: Clip | str | Path | None = None,
        audio: Clip | str | Path | None = None,
        batch_size: int = 4,
        progress: Progress | bool | None = None,
        **options: Any,  # further `conditions`, and fields of `options`
    ) -> list[Clip]: ...
    def encode(self, clip: Clip) -> AV: ...
    def decode(self, latents: AV, *, seed: int = 0) -> list[Clip]: ...
    def save(self, folder: Path) -> None: ...
    def to(self, device: torch.device | str) -> Any: ...


@runtime_checkable
class Upscaler(Protocol):
    """A model that enlarges the frames of clips by a whole factor."""

    @property
    def scale(self) -> int: ...
    @property
    def small_size(self) -> int: ...  # pixels along each side of what it was trained to enlarge
    @property
    def options(self) -> Any: ...
    def upscale_clip(
        self, clip: Clip, *, seed: int = 0, progress: Progress | None = None, **options: Any
    ) -> Clip: ...
    def upscale_frames(
        self,
        low_res: Float[torch.Tensor, "frame 3 height width"],  # of a model, beyond [-1, 1] too
        *,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> UInt8[np.ndarray, "frame large_height large_width 3"]: ...
    def to(self, device: torch.device | str) -> Any: ...


def option(
    default: Any,
    help: str,  # noqa: A002 - the word that argparse and tyro use
    *,
    low: int | float | None = None,
    high: int | float | None = None,
    choices: Sequence[str] = (),
    given_only: bool = False,
    on_page: bool = True,
) -> Any:
    """Return a dataclass field of an `options` class: a flag, a page field and a keyword argument.

    Args:
        low, high: smallest value allowed; largest value that the page offers.
        choices: allowed words.
        given_only: has an effect only where video or audio is given.
        on_page: visitors of the web page may set it.
    """
    details = {
        "help": help,
        "low": low,
        "high": high,
        "choices": tuple(choices),
        "given_only": given_only,
        "on_page": on_page,
    }
    return field(default=default, metadata=details)


def with_options(
    defaults: Options | None, changes: Mapping[str, Any], conditions: Iterable[str] = ()
) -> Options:
    """Return a model's options with some exchanged; a value of None keeps the model's own.

    Args:
        conditions: what else the model can be given, for the message.

    Raises:
        SoundreelError: an unknown name (the message lists the known ones), or a value out of range,
            or a model that only encodes and decodes, which has none.
    """
    if defaults is None:
        raise SoundreelError("this model only encodes and decodes; train it before it can generate")
    known = {entry.name: entry.metadata for entry in fields(defaults)}  # pyrefly: ignore
    unknown = sorted(changes.keys() - known)
    if unknown:
        takes = ", ".join([*sorted(conditions), *known])
        raise SoundreelError(f"unknown option {', '.join(unknown)}; this model takes {takes}")
    changed = {name: value for name, value in changes.items() if value is not None}
    for name, value in changed.items():
        low, choices = known[name].get("low"), known[name].get("choices")
        values = value if isinstance(value, tuple) else (value,)
        if low is not None and not all(number >= low for number in values):
            raise SoundreelError(f"{name} must be at least {low}, got {value}")
        if choices and value not in choices:
            raise SoundreelError(f"{name} is one of {', '.join(choices)}, got {value!r}")
    return replace(defaults, **changed)  # pyrefly: ignore
