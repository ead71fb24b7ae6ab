"""Configuration dataclasses to JSON and back, and from YAML: the one reader and writer.

Fractions are written as text, tuples as lists, nested dataclasses as objects. Reading is strict:
every unknown key and every value of another type is named by its dotted name, with what was
expected. A missing key takes its default, so that files of older releases keep loading: the default
of a new field must therefore be what was done before it existed.

A field that was renamed or removed stays readable where its dataclass says so:

    old_keys: ClassVar[Mapping[str, str | None]] = {"evening": "whitening", "freeze": None}

reads the value of `evening` as `whitening`, and ignores `freeze`, which must have had no effect. An
option that is no longer there is read where it was off, and named where it was not:

    removed: ClassVar[Mapping[str, Any]] = {"second_pass": "none", "phase": {"enabled": False}}
"""

import difflib
import functools
import math
import reprlib
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_checked_json, read_yaml, write_checked_json

Config = TypeVar("Config")


class ConfigError(SoundreelError):
    """A configuration key or value that does not exist or does not fit."""


def config_to_json(value: Any) -> Any:
    """Return the JSON value of a configuration dataclass, or of anything that may stand in one.

    Raises:
        TypeError: a value that `config_from_json` could not read back.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: config_to_json(getattr(value, field.name)) for field in fields(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Fraction | Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [config_to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): config_to_json(item) for key, item in value.items()}
    raise TypeError(f"a configuration cannot hold a {type(value).__name__}: {value!r}")


def config_from_json(
    kind: Any,
    value: Any,
    where: str,
    *,
    error: type[Exception] = ConfigError,
    is_stored: bool = True,
) -> Any:
    """Build a value of the type `kind`, usually a dataclass, from JSON.

    Args:
        where: what to call the value in messages, for example the path of its file.
        error: type of the exception to raise.
        is_stored: the value was written by a release of this package, perhaps an older one. Of what
            a person writes, settings without effect are refused.

    Raises:
        ConfigError: naming every unknown key, missing key, and value of another type.
    """
    reader = _Reader(is_stored=is_stored)
    built = reader.read(kind, value, "")
    if reader.problems:
        raise error(f"{where}: {'; '.join(reader.problems)}")
    return built


def save_json(config: Any, path: Path) -> None:
    """Write a configuration as a JSON file with its checksum, whole or not at all."""
    write_checked_json(path, config_to_json(config))


def load_json(kind: type[Config], path: Path, *, error: type[Exception] = ConfigError) -> Config:
    """Read a configuration that `save_json` wrote.

    Raises:
        ConfigError: unreadable, changed since it was written, or not such a configuration.
    """
    return config_from_json(kind, read_checked_json(path, error), str(path), error=error)


def merge_file(config: Config, path: Path) -> Config:
    """Return a copy of `config` with the values of a YAML file laid over it.

    Raises:
        ConfigError: unreadable YAML, an unknown key, or a value that does not fit.
    """
    values = read_yaml(path, ConfigError)
    if values is None:
        return config
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys, got {type(values).__name__}")
    merged = _merge(config_to_json(config), values)
    return config_from_json(type(config), merged, str(path), is_stored=False)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


class _Reader:
    """Builds values by their types and collects what does not fit."""

    def __init__(self, *, is_stored: bool) -> None:
        self.problems: list[str] = []
        self._is_stored = is_stored

    def read(self, kind: Any, value: Any, name: str) -> Any:
        """Return `value` as a `kind`; None, and a problem more, where it does not fit."""
        origin = get_origin(kind)
        if is_dataclass(kind) and isinstance(kind, type):
            return self._dataclass(kind, value, name)
        if kind is Any:
            return value
        if origin in (Union, types.UnionType):
            return self._union(get_args(kind), value, name)
        if origin is Literal:
            choices = get_args(kind)
            is_one = any(value == choice and type(value) is type(choice) for choice in choices)
            expected = f"one of {', '.join(map(repr, choices))}"
            return value if is_one else self._wrong(name, expected, value)
        if origin in (tuple, list):
            return self._sequence(origin, get_args(kind), value, name)
        if origin is dict:
            return self._mapping(get_args(kind)[1], value, name)
        return self._scalar(kind, value, name)

    def _dataclass(self, kind: type, value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            return self._wrong(name, f"the settings of a {kind.__name__}", value)
        known = {field.name: field for field in fields(kind) if field.init}  # pyrefly: ignore
        before = len(self.problems)
        value = self._without_old_keys(kind, self._without_removed(kind, value, name), name)
        for key in value:
            if key not in known:
                self.problems.append(f"unknown key {_dotted(name, key)} ({_nearest(key, known)})")
        missing = [
            _dotted(name, key)
            for key, field in known.items()
            if key not in value and field.default is MISSING and field.default_factory is MISSING
        ]
        if missing:
            self.problems.append(f"missing key {', '.join(missing)}")
        hints = _hints(kind)
        values = {
            key: self.read(hints[key], item, _dotted(name, key))
            for key, item in value.items()
            if key in known
        }
        if len(self.problems) > before:
            return None
        try:
            return kind(**values)
        # A file of unknown origin: whatever its values lead to is said in one line.
        except (ValueError, ArithmeticError, LookupError) as error:
            self.problems.append(f"{name}: {error}" if name else str(error))
            return None

    def _without_removed(self, kind: type, value: dict[str, Any], name: str) -> dict[str, Any]:
        removed: Mapping[str, Any] = getattr(kind, "removed", {})
        for key in [key for key in value if key in removed]:
            if not self._is_stored:
                self.problems.append(f"{_dotted(name, key)} is no longer an option; leave it out")
            elif not _is_off(value[key], removed[key]):
                self.problems.append(
                    f"{_dotted(name, key)} is an option that was removed: {removed[key]!r} is "
                    f"still read, {reprlib.repr(value[key])} needs an earlier release"
                )
        return {key: item for key, item in value.items() if key not in removed}

    def _without_old_keys(self, kind: type, value: dict[str, Any], name: str) -> dict[str, Any]:
        old_keys: Mapping[str, str | None] = getattr(kind, "old_keys", {})
        found = {key: old_keys[key] for key in value if key in old_keys}
        if not found:
            return value
        kept = {key: item for key, item in value.items() if key not in found}
        for old, new in found.items():
            if new is not None and new in kept:
                both = f"{_dotted(name, old)} and {_dotted(name, new)}"
                self.problems.append(f"{both} are one setting; give the latter alone")
            elif new is not None:
                kept[new] = value[old]
            elif not self._is_stored:
                self.problems.append(f"{_dotted(name, old)} has no effect; leave it out")
        return kept

    def _union(self, members: tuple[Any, ...], value: Any, name: str) -> Any:
        if value is None and types.NoneType in members:
            return None
        problems = []
        for member in members:
            if member is not types.NoneType:
                reader = _Reader(is_stored=self._is_stored)
                built = reader.read(member, value, name)
                if not reader.problems:
                    return built
                problems.append("; ".join(reader.problems))
        self.problems.append("; or ".join(problems))
        return None

    def _sequence(self, origin: type, items: tuple[Any, ...], value: Any, name: str) -> Any:
        if not isinstance(value, list):
            return self._wrong(name, "a list", value)
        if origin is list or items[-1] is Ellipsis:
            items = (items[0],) * len(value)
        if len(value) != len(items):
            return self._wrong(name, f"a list of {len(items)}", value)
        pairs = enumerate(zip(items, value, strict=True))
        return origin([self.read(kind, item, f"{name}[{i}]") for i, (kind, item) in pairs])

    def _mapping(self, kind: Any, value: Any, name: str) -> Any:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            return self._wrong(name, "a mapping of names", value)
        return {key: self.read(kind, item, _dotted(name, key)) for key, item in value.items()}

    def _scalar(self, kind: Any, value: Any, name: str) -> Any:
        if kind not in _SCALARS:
            raise TypeError(f"{name}: a configuration field cannot be annotated {kind}")
        accepted, convert, expected = _SCALARS[kind]
        # bool is a subclass of int, but `true` is no number.
        if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
            return self._wrong(name, expected, value)
        try:
            return convert(value)
        except (ValueError, ArithmeticError):
            return self._wrong(name, expected, value)

    def _wrong(self, name: str, expected: str, value: Any) -> None:
        prefix = f"{name}: " if name else ""
        self.problems.append(f"{prefix}expected {expected}, got {reprlib.repr(value)}")


def _is_off(value: Any, off: Any) -> bool:
    """Return whether a removed option had no effect; of a group, whether the named keys say so."""
    if isinstance(off, dict):
        return isinstance(value, dict) and all(
            _is_off(value.get(key, item), item) for key, item in off.items()
        )
    return value == off


def _dotted(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _nearest(key: Any, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(key), known, 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _integer(value: int | float) -> int:
    if value != int(value):  # 1e6 of a YAML file is a whole number, 1.5 is not
        raise ValueError
    return int(value)


def _finite(value: int | float) -> float:
    if not math.isfinite(value):
        raise ValueError
    return float(value)


_SCALARS: dict[Any, tuple[tuple[type, ...], Callable[[Any], Any], str]] = {
    bool: ((bool,), bool, "true or false"),
    int: ((int, float), _integer, "an integer"),
    float: ((int, float), _finite, "a number"),
    str: ((str,), str, "a text"),
    Fraction: ((int, float, str), lambda x: Fraction(str(x)), "a fraction such as '30000/1001'"),
    Path: ((str,), Path, "a path"),
}
