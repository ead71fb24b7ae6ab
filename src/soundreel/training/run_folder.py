"""The folder of a run: whether a configuration may go on with what it holds, and the machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from soundreel.config_io import ConfigError, config_to_json, load_json

FREE_SECTIONS = frozenset({"preview", "decoding", "sampling", "vocoder"})
FREE_SETTINGS = frozenset(
    {
        "total_samples",
        "micro_batch_size",
        "num_threads",
        "log_every",
        "save_every",
        "preview_every",
        "keep_checkpoints",
        "cache",
        "num_workers",
        "folder",
    }
)
"""What may change between the parts of a run. All but `micro_batch_size` leave its course as it is;
that one groups the same clips otherwise, and window shifts and dropout are drawn by group; and with
`decay_samples` the learning rate falls towards the `total_samples` of the moment. A text
encoder may lie in another `folder`; that it is the same one, its hash says."""


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
    """What a resumed run must not change, by dotted name."""
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


@contextmanager
def machine_restored() -> Iterator[None]:
    """Afterwards threads and the treatment of tiny numbers are as before; serves as a decorator."""
    num_threads, flushes = torch.get_num_threads(), float(torch.tensor(1e-39) * 1.0) == 0
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
        torch.set_flush_denormal(flushes)


def prepare_machine(num_threads: int) -> None:
    """Threads as asked; numbers below the normal range become 0, which is faster on CPUs."""
    torch.set_flush_denormal(True)
    if num_threads:
        torch.set_num_threads(num_threads)
