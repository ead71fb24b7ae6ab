"""Typed configuration of a training run: what a preset returns, a YAML file or flags may change.

Components own their configuration dataclasses; this module composes them and reads and writes them.
Presets need neither YAML nor pydantic: only the functions that read do, and import them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from soundreel.checkpoints.config_json import config_to_json
from soundreel.files import write_text

Config = TypeVar("Config")


class ConfigError(ValueError):
    """A configuration key or value that does not exist or does not fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which windows of a prepared data set to train on.

    Attributes:
        split: part of the data set.
        stride: frames between the starts of windows; 1 takes every start frame.
        flip_probability: of mirroring a clip left to right, all its frames alike.
        cache: keep decoded clips in memory (up to 2 GiB).
        num_workers: processes that read ahead; 0 reads in the training process.
    """

    split: str = "train"
    stride: int = 1
    flip_probability: float = 0.0
    cache: bool = True
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewConfig:
    """Samples drawn during training.

    Attributes:
        count: clips per preview.
        num_steps: steps of the default sampler.
    """

    count: int = 4
    num_steps: int = 20


def from_dict(kind: type[Config], values: dict[str, Any], where: str) -> Config:
    """Validate plain values against a configuration dataclass, strictly.

    Raises:
        ConfigError: naming every unknown key and every value that does not fit.
    """
    from pydantic import TypeAdapter, ValidationError

    unknown = _unknown_keys(TypeAdapter(kind).json_schema(), values)
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in e['loc']) or kind.__name__}:"
            f" {e['msg'].removeprefix('Value error, ')}"
            + (f" (got {e['input']!r})" if not isinstance(e["input"], dict) else "")
            for e in error.errors()
        ]
        raise ConfigError(f"{where}: {'; '.join(problems)}") from None


def merge_file(config: Config, path: Path) -> Config:
    """A copy of `config` with the values of a YAML file laid over it.

    Raises:
        ConfigError: unreadable YAML, an unknown key, or a value that does not fit.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({error})") from None
    if values is None:
        return config
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(values).__name__}")
    return from_dict(type(config), _merge(config_to_json(config), values), str(path))


def save_json(config: Any, path: Path) -> None:
    """Write a configuration beside what it produced."""
    write_text(path, json.dumps(config_to_json(config), indent=2) + "\n")


def load_json(kind: type[Config], path: Path) -> Config:
    """Read a configuration written by `save_json`."""
    try:
        values = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return from_dict(kind, values, str(path))


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


def _unknown_keys(schema: dict[str, Any], values: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys that no field has; dataclasses ignore them by default, which would hide a typo."""
    definitions = schema.get("$defs", {})
    properties = schema.get("properties", {})
    unknown = [
        f"{prefix}{k} (known: {', '.join(properties)})" for k in values if k not in properties
    ]
    for key, value in values.items():
        reference = properties.get(key, {}).get("$ref", "").rpartition("/")[2]
        if isinstance(value, dict) and reference:
            inner = {**definitions[reference], "$defs": definitions}
            unknown += _unknown_keys(inner, value, f"{prefix}{key}.")
    return unknown
