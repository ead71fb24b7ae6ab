"""Display of a training run on the terminal: log lines, and between them how far it is."""

import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from soundreel.progress import progress_bar

PLAIN_EVERY_S = 30.0
"""Seconds of silence after which a line says how far it is, where the output is no terminal."""


class TrainingDisplay:
    """Write the numbers of a run; a tracker of each stage (`protocols.LiveTracker`).

    Args:
        advance: moves the live line of a terminal; None where there is no terminal.
        clock: seconds.
    """

    def __init__(
        self,
        advance: Callable[[int, int], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._advance = advance
        self._clock = clock
        self._spoke_s = clock()
        self._began = (0, self._spoke_s)  # of what is under way: how much was done, and when
        self._done = self._total = 0

    def __call__(self, numbers: Mapping[str, float]) -> None:
        """Write one line: clips seen, losses, speed, time left."""
        named = {
            name: value
            for name, value in numbers.items()
            if "/" in name and name[-3:-1] != "_q"  # losses by quarter of time go to the log alone
        }
        owners = {name.partition("/")[0] for name in named}
        losses = "  ".join(
            f"{name if len(owners) > 1 else name.partition('/')[2]} {value:.4f}"
            for name, value in named.items()
        )
        self._write(
            f"{numbers['samples']:>9.0f} clips  {losses}  {numbers['samples_per_s']:.2f} clips/s"
            f"  {clock_text(numbers['time_left_s'])} left"
        )

    def step(self, done: int, total: int) -> None:
        """Show that `done` of `total` clips are seen, of a stage or of what prepares it."""
        now = self._clock()
        if total != self._total or done < self._done:
            self._began = (done, now)
        self._done, self._total = done, total
        if self._advance is not None:
            self._advance(done, total)
        elif now - self._spoke_s >= PLAIN_EVERY_S:
            before, began_s = self._began
            speed = (done - before) / max(now - began_s, 1e-9)
            left = f"  {clock_text((total - done) / speed)} left" if speed else ""
            self._write(f"{done:>9} of {total}{left}")

    def _write(self, line: str) -> None:
        self._spoke_s = self._clock()
        sys.stderr.write(f"{line}\n")


def clock_text(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextmanager
def training_display() -> Generator[TrainingDisplay]:
    """Yield a display with a live line where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield TrainingDisplay(None)
        return
    with progress_bar("clips") as advance:
        yield TrainingDisplay(advance)
