"""Running means between two log lines, speed and time left."""

import time
from collections.abc import Callable, Mapping

Tracker = Callable[[Mapping[str, float]], None]


class Meters:
    """Collects (mean, count) pairs by name and turns them into one log line."""

    def __init__(self, total_samples: int, samples_seen: int) -> None:
        self._total = total_samples
        self._seen = self._seen_at_flush = samples_seen
        self._sums: dict[str, tuple[float, int]] = {}
        self._started = time.monotonic()
        self._excluded_s = 0.0

    def add(self, prefix: str, means: Mapping[str, tuple[float, int]]) -> None:
        for name, (mean, count) in means.items():
            total, seen = self._sums.get(f"{prefix}/{name}", (0.0, 0))
            self._sums[f"{prefix}/{name}"] = (total + mean * count, seen + count)

    def advance(self, samples_seen: int) -> None:
        self._seen = samples_seen

    def exclude(self, seconds: float) -> None:
        """Time that was not spent training."""
        self._excluded_s += seconds

    def flush(self, **extra: float) -> dict[str, float]:
        """The line since the last one: means, `samples_per_s`, `time_left_s`."""
        elapsed = max(time.monotonic() - self._started - self._excluded_s, 1e-9)
        speed = (self._seen - self._seen_at_flush) / elapsed
        line = {
            "samples": float(self._seen),
            "samples_per_s": speed,
            "time_left_s": (self._total - self._seen) / speed,
            **extra,
            **{name: total / count for name, (total, count) in sorted(self._sums.items())},
        }
        self._sums = {}
        self._seen_at_flush = self._seen
        self._started = time.monotonic()
        self._excluded_s = 0.0
        return line
