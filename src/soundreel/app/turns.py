"""Turns at the network: one visitor at a time, each can cancel what they started."""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from soundreel.app.results import Made
from soundreel.protocols import Progress

Piece = TypeVar("Piece")


class CancelledError(Exception):
    """The visitor asked to stop."""


@dataclass(eq=False)
class Work:
    """Request that one visitor started.

    Attributes:
        made: set where it ended with a result.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    progress: Progress | None = None
    made: Made | None = None

    def step(self, done: int, total: int) -> None:
        """Tell how far it is, or raise `CancelledError` if it was cancelled."""
        if self.stop.is_set():
            raise CancelledError
        self.tell(done, total)

    def tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


class Turns:
    """Line of those who wait for the network."""

    def __init__(self) -> None:
        self._works: dict[str, Work] = {}
        self._turn = threading.Lock()

    def cancel(self, visitor: str) -> Made | None:
        """Stop what this visitor started, at its next step, and wait until it has stopped.

        A film stops at the border of a piece; what is made of it is returned.
        """
        work = self._works.get(visitor)
        if work is None:
            return None
        work.stop.set()
        work.ended.wait()
        return work.made

    def each(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """Yield pieces, each made in a turn of its own."""
        while True:
            with self._turn:
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    @contextmanager
    def working(self, visitor: str, progress: Progress | None) -> Generator[Work]:
        """Wait for the network, and hold it.

        Raises:
            CancelledError: `cancel` was called in the meantime, or is called in `Work.step`.
        """
        work = self._works[visitor] = Work(progress=progress)
        try:
            with self._turn:
                work.step(0, 1)
                yield work
        finally:
            if self._works.get(visitor) is work:
                del self._works[visitor]
            work.ended.set()
