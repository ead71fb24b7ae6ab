"""The numbers of a step, fetched from the device at once; running means, speed and time left."""

import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from soundreel.device import send
from soundreel.protocols import Tracker
from soundreel.training.objectives import TrainingLoss
from soundreel.training.step import Step

__all__ = ["Meters", "Tracker", "collected"]


class Meters:
    """Collects sums with counts by name and turns them into one log line of means."""

    def __init__(self, total_samples: int, samples_seen: int) -> None:
        self._total = total_samples
        self._seen = self._seen_at_flush = samples_seen
        self._sums: dict[str, tuple[float, float]] = {}
        self._started = time.monotonic()
        self._excluded_s = 0.0

    def add(self, sums: Mapping[str, tuple[float, float]]) -> None:
        """Add sums and the counts of samples behind them."""
        for name, (more, count) in sums.items():
            total, seen = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (total + more, seen + count)

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


def collected(
    passes: Mapping[str, tuple[Sequence[TrainingLoss], Tensor]], step: Step, stop_requested: bool
) -> tuple[dict[str, tuple[float, float]], bool]:
    """Fetch the numbers of a step from the device, summed over processes: its only host wait.

    Args:
        passes: losses of the micro-batches and the gradient's norm, by the name of the trainee.

    Returns:
        Sums and counts by "trainee/term", with "loss" and "grad_norm" among the terms; and whether
        any process is to stop.
    """
    names: list[str] = []
    values: list[int | float | Tensor] = []
    counts: list[int | float | Tensor] = []
    for trainee, (results, norm) in passes.items():
        names += [f"{trainee}/loss", f"{trainee}/grad_norm"]
        values += [torch.stack([result.loss for result in results]).sum(), norm]
        counts += [1.0, 1.0]
        for result in results:
            for name, (value, count) in result.means.items():
                names.append(f"{trainee}/{name}")
                values.append(value)
                counts.append(count)
    device = next(norm.device for _, norm in passes.values())
    numbers = _as_vector([*values, *counts, float(stop_requested)], device)
    value, count, flag = numbers.split([len(names), len(names), 1])
    weighted = torch.where(count > 0, value * count, 0.0)
    fetched = step.parallel.sum(torch.cat([weighted, count, flag])).tolist()
    sums: dict[str, tuple[float, float]] = {}
    for index, name in enumerate(names):
        total, seen = sums.get(name, (0.0, 0.0))
        sums[name] = (total + fetched[index], seen + fetched[len(names) + index])
    return sums, fetched[-1] > 0


def _as_vector(numbers: Sequence[int | float | Tensor], device: torch.device) -> Tensor:
    """Return numbers, some of them on the device, as one vector there; nothing waits for it."""
    tensors = [x.detach().float() for x in numbers if isinstance(x, Tensor)]
    vector = torch.tensor([0.0 if isinstance(x, Tensor) else x for x in numbers])
    places = torch.tensor([i for i, x in enumerate(numbers) if isinstance(x, Tensor)])
    moved = torch.stack([x.to(device) for x in tensors]).double()
    return send(vector.double(), device).index_put((send(places, device),), moved)
