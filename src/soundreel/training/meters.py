"""Running means between two log lines, speed and time left."""

import time
from collections.abc import Mapping

from soundreel.protocols import Tracker

__all__ = ["Meters", "Tracker"]


class Meters:
    """Collects sums with counts by name and turns them into one log line of means."""

    def __init__(self, total_samples: int, samples_seen: int) -> None:
        self._total = total_samples
        self._seen = self._seen_at_flush = samples_seen
        self._sums: dict[str, tuple[float, float]] = {}
        self._started = time.monotonic()
        self._excluded_s = 0.0

    def add(self, prefix: str, sums: Mapping[str, tuple[float, float]]) -> None:
        """Add sums and the counts of samples behind them."""
        for name, (more, count) in sums.items():
            total, seen = self._sums.get(f"{prefix}/{name}", (0.0, 0.0))
            self._sums[f"{prefix}/{name}"] = (total + more, seen + count)

    def advance(self, samples_seen: int) -> None:
        """Say how far the run has come."""
        self._seen = samples_seen

    def exclude(self, seconds: float) -> None:
        """Leave out time that was not spent training."""
        self._excluded_s += seconds

    def flush(self, **extra: float) -> dict[str, float]:
        """Return the line since the last one: means, `samples_per_s`, `time_left_s`."""
        elapsed = max(time.monotonic() - self._started - self._excluded_s, 1e-9)
        speed = (self._seen - self._seen_at_flush) / elapsed
        line = {
            "samples": float(self._seen),
            "samples_per_s": speed,
            "time_left_s": (self._total - self._seen) / speed,
            **extra,
            **{name: total / seen for name, (total, seen) in sorted(self._sums.items()) if seen},
        }
        self._sums = {}
        self._seen_at_flush = self._seen
        self._started = time.monotonic()
        self._excluded_s = 0.0
        return line
