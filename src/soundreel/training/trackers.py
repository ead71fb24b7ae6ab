"""Trackers of a run's numbers: JSON lines always, TensorBoard if installed and asked for."""

import json
from collections.abc import Mapping
from pathlib import Path

from soundreel.files import write_text, writing_errors
from soundreel.training.meters import Tracker


class JsonLines:
    """Appends one JSON object a call; on resuming, drops the lines past the checkpoint."""

    def __init__(self, path: Path, samples_seen: int = 0) -> None:
        self._path = path
        kept = [line for line in read_log(path) if line["samples"] <= samples_seen]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))

    def __call__(self, numbers: Mapping[str, float]) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in numbers.items()}
        with writing_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded) + "\n")


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the lines of a run's log, up to the first that a crash or damage has spoilt."""
    lines = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            numbers = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not _is_log_line(numbers):
            break
        lines.append(numbers)
    return lines


def _is_log_line(numbers: object) -> bool:
    if not isinstance(numbers, dict) or "samples" not in numbers:
        return False
    return all(isinstance(value, int | float) for value in numbers.values())


def tensorboard_tracker(folder: Path) -> Tracker:
    """Return a writer of scalars for TensorBoard (the `tensorboard` extra).

    Raises:
        ImportError: if TensorBoard is not installed.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def track(numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            if name != "samples":
                writer.add_scalar(name, value, int(numbers["samples"]))
        writer.flush()

    return track
