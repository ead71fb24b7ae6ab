"""SIGTERM and Ctrl-C as a polite request: finish the step, save, stop."""

import signal
import threading
from types import FrameType


class StopRequest:
    """While entered, the first SIGTERM or SIGINT sets `requested`; a second one acts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, signal.Handlers | object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyrefly: ignore
        self._previous = {}

    def __exit__(self, *details: object) -> None:
        self._restore()
