"""The folder of a run: whether a configuration may go on with what it holds, and the machine."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from soundreel.config_io import ConfigError, config_to_json, load_json
from soundreel.training.loop import TrainConfig

Config = TypeVar("Config")
Names = tuple[str, ...]

FREE_SECTIONS = frozenset({"preview", "decoding", "sampling", "vocoder"})
FREE_SETTINGS = frozenset(
    {
        "total_samples",
        "micro_batch_size",
        "num_threads",
        "sharding",
        "compile",
        "log_every",
        "save_every",
        "preview_every",
        "keep_checkpoints",
        "cache",
        "num_workers",
        "folder",
    }
)
"""Settings that may change between the parts of a run. All but `micro_batch_size` leave its course
as it is, but for rounding; that one groups the same clips otherwise, and masks of dropout are drawn
by group; and with `decay_samples` the learning rate falls towards the `total_samples` of the
moment. A text encoder may lie in another `folder`; that it is the same one, its hash says."""


def check_out(config: Any, out: Path, *, resume: bool) -> None:
    """Stop before any work if `out` does not fit what is asked.

    Args:
        config: the run's configuration dataclass.

    Raises:
        ConfigError: there is no run to resume, one that would be overwritten, or one with another
            configuration, naming what differs.
    """
    path = out / "config.json"
    if not path.exists():
        if resume:
            raise ConfigError(f"{out}: no run to resume here; leave out --resume to start one")
        return
    if not resume:
        raise ConfigError(f"{out}: holds a run already; add --resume to go on, or choose another")
    before, now = _fixed(load_json(type(config), path)), _fixed(config)
    if before != now:
        names = ", ".join(sorted(n for n in now.keys() | before if before.get(n) != now.get(n)))
        raise ConfigError(
            f"{out}: was begun with other settings ({names}; compare {path});"
            " resume with the same, or start a new run elsewhere"
        )


def _fixed(config: Any) -> dict[str, Any]:
    """Return what a resumed run must not change, by dotted name."""
    return dict(_leaves(config_to_json(config), ""))


def _leaves(values: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        if key in FREE_SETTINGS or (not prefix and key in FREE_SECTIONS):
            continue
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def with_precision(config: Config, choose: Callable[[tuple[str, ...]], str]) -> Config:
    """Return a configuration in which every `precision` "auto" is decided.

    Args:
        choose: called with the names that lead to a `TrainConfig`.
    """
    return _with_precision(config, choose, ())


def _with_precision(config: Any, choose: Callable[[tuple[str, ...]], str], path: Names) -> Any:
    changes: dict[str, Any] = {}
    for entry in fields(config):
        value, names = getattr(config, entry.name), (*path, entry.name)
        if isinstance(value, TrainConfig) and value.precision == "auto":
            changes[entry.name] = replace(value, precision=choose(names))
        elif is_dataclass(value):
            changes[entry.name] = _with_precision(value, choose, names)
    return replace(config, **changes) if changes else config


def as_begun(config: Config, out: Path) -> Config:
    """Return a configuration that is as exact as the run in `out`, where it leaves that open."""
    path = out / "config.json"
    if not path.is_file():
        return config
    begun = load_json(type(config), path)

    def found(names: tuple[str, ...]) -> str:
        value: Any = begun
        for name in names:
            value = getattr(value, name)
        return value.precision

    return with_precision(config, found)


def stage_precisions(
    config: Any, stages: Mapping[str, TrainConfig], settled: Any
) -> dict[str, str]:
    """Return the decided precision of each stage, at the place of its `TrainConfig`."""
    places: list[tuple[Names, TrainConfig, TrainConfig]] = []

    def walk(one: Any, other: Any, path: Names) -> None:
        for entry in fields(one):
            value, twin = getattr(one, entry.name), getattr(other, entry.name)
            if isinstance(value, TrainConfig):
                places.append(((*path, entry.name), value, twin))
            elif is_dataclass(value):
                walk(value, twin, (*path, entry.name))

    walk(config, settled, ())
    precisions = {}
    for name, train in stages.items():
        own = [(name in path, twin) for path, value, twin in places if value is train]
        if own:  # stages may share one `TrainConfig`
            precisions[name] = max(own, key=lambda place: place[0])[1].precision
    return precisions


@contextmanager
def machine_restored() -> Iterator[None]:
    """Restore threads and the treatment of tiny numbers afterwards; serves as a decorator."""
    num_threads, flushes = torch.get_num_threads(), float(torch.tensor(1e-39) * 1.0) == 0
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
        torch.set_flush_denormal(flushes)


def prepare_machine(num_threads: int) -> None:
    """Set threads as asked; numbers below the normal range become 0, which is faster on CPUs."""
    torch.set_flush_denormal(True)
    if num_threads:
        torch.set_num_threads(num_threads)
