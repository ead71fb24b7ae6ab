"""JSON and YAML files of unknown origin to plain values, within limits of size and depth.

Files that the package itself writes carry a checksum of their content, as their last key.
"""

import json
import re
from pathlib import Path
from typing import Any

from soundreel.files import checksum, write_text

MAX_JSON_BYTES, MAX_YAML_BYTES = 16 * 2**20, 2**18  # YAML is read a hundred times slower
MAX_DEPTH, MAX_VALUES = 64, 200_000
"""Limits of a file's nesting and of its number of values, those that a YAML alias repeats
counted each time."""

CHECKSUM = "checksum"
"""Key of the CRC-32 of all else in a file, written in one way whatever its spaces and order."""


def read_json(path: Path, error: type[Exception]) -> Any:
    """Read a JSON file.

    Raises:
        error: absent, no JSON, too large, or nested too deeply.
    """
    return parse_json(_content(path, MAX_JSON_BYTES, error), str(path), error)


def write_checked_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file with the checksum of its content, whole or not at all.

    Raises:
        FileError: it cannot be written.
    """
    write_text(path, json.dumps({**content, CHECKSUM: _checksum(content)}, indent=2) + "\n")


def read_checked_json(path: Path, error: type[Exception]) -> Any:
    """Read a JSON file that `write_checked_json` wrote; files of older releases have no checksum.

    Raises:
        error: as `read_json`, or the content has changed since it was written.
    """
    content = read_json(path, error)
    if not isinstance(content, dict) or CHECKSUM not in content:
        return content
    expected, found = content.pop(CHECKSUM), _checksum(content)
    if expected != found:
        raise error(
            f"{path}: damaged since it was written (its checksum is {found}, not "
            f"{str(expected)[:20]!r}); copy it again or, if you changed it yourself, remove its "
            f"{CHECKSUM!r}"
        )
    return content


def _checksum(content: dict[str, Any]) -> str:
    return f"{checksum(json.dumps(content, sort_keys=True).encode()):08x}"


def parse_json(text: str | bytes, where: str, error: type[Exception]) -> Any:
    """Return the value of a JSON text; see `read_json`."""
    try:
        value = json.loads(text)
    except ValueError as problem:
        raise error(f"{where}: not a JSON file ({problem})") from None
    except RecursionError:
        raise error(f"{where}: nested too deeply for a configuration") from None
    _check_tree(value, where, error)
    return value


def read_yaml(path: Path, error: type[Exception]) -> Any:
    """Read a YAML file; as `read_json`."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 3e-4 as a number, as YAML 1.2 does, and knows no merge keys, which can explode."""

        def flatten_mapping(self, node: Any) -> None:
            """Leave the key `<<` in its mapping, where it has no meaning."""

    number = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    try:
        value = yaml.load(_content(path, MAX_YAML_BYTES, error), Loader)
    except (yaml.YAMLError, ValueError) as problem:
        raise error(f"{path}: cannot be read as YAML ({problem})") from None
    except RecursionError:
        raise error(f"{path}: nested too deeply for a configuration") from None
    _check_tree(value, str(path), error)
    return value


def _content(path: Path, limit: int, error: type[Exception]) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from None
    if len(content) > limit:
        raise error(f"{path}: larger than {limit >> 10} KiB; this is no configuration")
    return content


def _check_tree(value: Any, where: str, error: type[Exception]) -> None:
    """Refuse what would take forever to walk, or more depth than Python's stack has."""
    todo, count = [(value, 1)], 0
    while todo:
        item, depth = todo.pop()
        count += 1
        if depth > MAX_DEPTH:
            raise error(f"{where}: nested too deeply for a configuration")
        if count > MAX_VALUES:
            raise error(f"{where}: holds more than {MAX_VALUES:,} values")
        if isinstance(item, dict):
            todo += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list | tuple | set):
            todo += [(inner, depth + 1) for inner in item]
