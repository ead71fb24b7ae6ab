"""Configuration dataclasses to JSON and back, strictly: what is written loads back equal.

Fractions are written as strings, tuples as lists, nested dataclasses as objects. Reading rejects
unknown and missing keys and values of another type, each named by its path in the file.
"""

import types
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from soundreel.checkpoints.errors import CheckpointError, listed


def config_to_json(value: Any) -> Any:
    """The JSON value of a configuration dataclass (or of anything that may stand in one).

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


def config_from_json(config_type: Any, value: Any, where: str) -> Any:
    """Build a value of `config_type` from JSON.

    Args:
        where: what to call the value in messages, for example the path of its file.

    Raises:
        CheckpointError: unknown key, missing key, or a value of another type.
    """
    if is_dataclass(config_type) and isinstance(config_type, type):
        return _dataclass(config_type, value, where)
    origin = get_origin(config_type)
    if config_type is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(get_args(config_type), value, where)
    if origin is Literal:
        return _checked(value, value in get_args(config_type), where, str(get_args(config_type)))
    if origin in (tuple, list):
        return _sequence(origin, get_args(config_type), value, where)
    if origin is dict:
        _checked(value, isinstance(value, dict), where, "an object")
        item_type = get_args(config_type)[1]
        return {k: config_from_json(item_type, v, f"{where}.{k}") for k, v in value.items()}
    return _scalar(config_type, value, where)


def _dataclass(config_type: type, value: Any, where: str) -> Any:
    _checked(value, isinstance(value, dict), where, f"an object ({config_type.__name__})")
    names = [field.name for field in fields(config_type)]
    unknown = sorted(set(value) - set(names))
    missing = [name for name in names if name not in value]
    if unknown or missing:
        parts = [f"unknown key {listed(unknown)}"] if unknown else []
        parts += [f"missing key {listed(missing)}"] if missing else []
        raise CheckpointError(
            f"{where}: {'; '.join(parts)}; a {config_type.__name__} has {', '.join(names)}"
        )
    hints = get_type_hints(config_type)
    values = {n: config_from_json(hints[n], value[n], f"{where}: {n}") for n in names}
    try:
        return config_type(**values)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error


def _union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and types.NoneType in members:
        return None
    members = tuple(member for member in members if member is not types.NoneType)
    errors = []
    for member in members:
        try:
            return config_from_json(member, value, where)
        except CheckpointError as error:
            errors.append(str(error))
    raise CheckpointError("; or ".join(errors))


def _sequence(origin: type, items: tuple[Any, ...], value: Any, where: str) -> Any:
    _checked(value, isinstance(value, list), where, "a list")
    if origin is list or items[-1] is Ellipsis:
        items = (items[0],) * len(value)
    _checked(value, len(value) == len(items), where, f"a list of {len(items)}")
    pairs = enumerate(zip(items, value, strict=True))
    return origin(config_from_json(kind, item, f"{where}[{i}]") for i, (kind, item) in pairs)


_SCALARS: dict[Any, tuple[tuple[type, ...], Callable[[Any], Any], str]] = {
    bool: ((bool,), bool, "true or false"),
    int: ((int,), int, "an integer"),
    float: ((int, float), float, "a number"),
    str: ((str,), str, "a string"),
    Fraction: ((int, str), Fraction, "a fraction such as '30000/1001'"),
    Path: ((str,), Path, "a path"),
}


def _scalar(config_type: Any, value: Any, where: str) -> Any:
    if config_type not in _SCALARS:
        raise TypeError(f"{where}: a configuration field cannot be annotated {config_type}")
    accepted, convert, expected = _SCALARS[config_type]
    # bool is a subclass of int, but `true` is no number.
    right = isinstance(value, accepted) and isinstance(value, bool) == (config_type is bool)
    _checked(value, right, where, expected)
    try:
        return convert(value)
    except (ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{where}: expected {expected}, got {value!r}") from error


def _checked(value: Any, right: bool, where: str, expected: str) -> Any:
    if not right:
        raise CheckpointError(f"{where}: expected {expected}, got {value!r}")
    return value
