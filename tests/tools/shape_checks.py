"""The checks of `--jaxtyping-packages`, made cheap.

jaxtyping's own decorator binds the arguments of every call to the signature, checks them twice, and
builds two checked functions for every function that is imported. The one here gives a call a scope
of axis names as well, but lets beartype check arguments and result in it once, with what is built
at a function's first call.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

CONF = BeartypeConf(violation_type=jaxtyping.TypeCheckError)
LATER = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
jaxtyped = jaxtyping.jaxtyped
scope = jaxtyped("context")


def checked(*, typechecker: Any) -> Callable[[Any], Any]:
    """Return a decorator in place of `jaxtyping.jaxtyped`, for functions and classes.

    Left to jaxtyping are functions whose body runs later, for beartype would check their arguments
    only then, and those with axes of the size that an argument says, which it looks up by name.
    """

    def decorated(part: Any) -> Any:
        if inspect.isclass(part):
            if dataclasses.is_dataclass(part) and not hasattr(part.__init__, "is_checked"):
                part.__init__ = decorated(part.__init__)
            return part
        hints = part.__annotations__
        if part.__code__.co_flags & LATER or any("{" in str(hint) for hint in hints.values()):
            return jaxtyped(part, typechecker=typechecker)
        return with_scope(part) if hints else part

    return decorated


def with_scope(function: FunctionType) -> Callable[..., Any]:
    """Return a function whose calls are checked, each with axis names of its own."""
    call = None

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal call
        if call is None:
            call = with_beartype(function)
        with scope:
            return call(*args, **kwargs)

    wrapper.is_checked = True
    return wrapper


def with_beartype(function: FunctionType) -> Callable[..., Any]:
    """Return a checked copy of a function, whose own hints stay as they are written."""
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    for name in ("__kwdefaults__", "__qualname__", "__module__"):
        setattr(copy, name, getattr(function, name))
    copy.__annotations__ = {
        name: resolved(hint, function.__globals__)
        for name, hint in function.__annotations__.items()
    }
    return beartype(conf=CONF)(copy)


def resolved(hint: Any, names: dict[str, Any]) -> Any:
    """Return a hint without strings; `Any` if it has names that only type checkers import."""
    holder = type("Holder", (), {"__annotations__": {"hint": hint}})
    try:
        return get_type_hints(holder, names, include_extras=True)["hint"]
    except Exception:
        return Any
