"""Budgets given in epochs become samples once the data set is known."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from soundreel.training.loop import TrainConfig


def in_samples(config: Any, num_windows: int) -> Any:
    """Return a configuration whose `TrainConfig`s all say how many samples they see.

    Args:
        config: dataclass with `TrainConfig`s at any depth.
        num_windows: windows of the data set, one epoch.
    """
    if isinstance(config, TrainConfig):
        total = config.total_samples or max(1, round(config.epochs * num_windows))
        return replace(config, total_samples=total)
    if not is_dataclass(config) or isinstance(config, type):
        return config
    before = {entry.name: getattr(config, entry.name) for entry in fields(config) if entry.init}
    after = {name: in_samples(value, num_windows) for name, value in before.items()}
    changed = {name: value for name, value in after.items() if value != before[name]}
    return replace(config, **changed) if changed else config
