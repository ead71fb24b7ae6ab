"""Flags made from the options that systems declare."""

from collections.abc import Iterable
from dataclasses import MISSING, Field, fields, make_dataclass
from dataclasses import field as dataclass_field
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro

Base = TypeVar("Base")
_PREFIX = "prefix"
"""Key of a field's metadata: with what prefix `with_flags` added it."""


def with_flags(base: type[Base], options: Iterable[type], *, prefix: str = "") -> type[Base]:
    """Return command-line arguments that also have a flag for each option of some systems.

    A flag that is not given is None: the model's own value. Where systems share a name, the first
    one's help is shown.

    Args:
        prefix: of the flags' names, for options of a second model.
    """
    flags: dict[str, tuple[str, Any, Any]] = {}
    for kind in options:
        hints = get_type_hints(kind)
        for entry in fields(kind):
            if entry.name not in flags:
                optional: Any = _flag_type(hints[entry.name]) | None
                annotated = Annotated[optional, tyro.conf.arg(help=_help(entry))]
                added = dataclass_field(default=None, metadata={_PREFIX: prefix})
                flags[entry.name] = (prefix + entry.name, annotated, added)
    made = make_dataclass(base.__name__, flags.values(), bases=(base,), frozen=True, kw_only=True)
    made.__doc__ = base.__doc__
    return made


def given_flags(arguments: Any, prefix: str = "") -> dict[str, Any]:
    """Return the flags that `with_flags` added with this prefix and that were given."""
    values = {
        entry.name.removeprefix(prefix): getattr(arguments, entry.name)
        for entry in fields(arguments)
        if entry.metadata.get(_PREFIX) == prefix
    }
    return {name: value for name, value in values.items() if value is not None}


def flags_of(kind: type) -> type:
    """Return a dataclass like `kind`, whose options have their help on the command line."""
    hints = get_type_hints(kind)
    made = make_dataclass(
        kind.__name__,
        [
            (
                entry.name,
                Annotated[hints[entry.name], tyro.conf.arg(help=entry.metadata["help"])],
                dataclass_field(default=entry.default),
            )
            for entry in fields(kind)
        ],
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = kind.__doc__
    return made


def _flag_type(hint: Any) -> Any:
    """Return the first type of a union: a flag gives one number where Python takes a pair, too."""
    return get_args(hint)[0] if get_origin(hint) in (Union, UnionType) else hint


def _help(entry: Field[Any]) -> str:
    choices = entry.metadata.get("choices", ())
    words = entry.metadata["help"]
    if choices:
        words = f"{words.removesuffix('.')}: {', '.join(choices)}."
    shown = "" if entry.default is MISSING else " Default: the model's own."
    return words + shown
