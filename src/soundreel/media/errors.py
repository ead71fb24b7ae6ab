"""Define the one exception of everything that reads or writes media files."""

import os
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from soundreel.errors import SoundreelError

Source = str | Path | BufferedIOBase


class MediaError(SoundreelError):
    """Tells in one line why a media file cannot be read or written: file, cause, remedy."""

    def __init__(self, source: Source, problem: str, remedy: str) -> None:
        self.source = source_name(source)
        self.problem = " ".join(problem.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(f"{self.source}: {self.problem}; {self.remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the three parts, so that the error travels between worker processes."""
        return type(self), (self.source, self.problem, self.remedy)


def source_name(source: Source) -> str:
    """Return how to call a path or an open file in a message; see `printable`."""
    if isinstance(source, str | Path):
        return printable(source)
    return printable(str(getattr(source, "name", None) or "<bytes>"))


def printable(path: str | Path) -> str:
    """Return a path as text that every encoding of Unicode can hold.

    The bytes of a name that are no UTF-8 become `\\xNN`; all other names stay as they are.
    """
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
