"""Speed of training: overhead of the loop, two processes against one, one checkout against another.

Trains presets for a few steps on rendered scenes with one thread per process, in float32. Figures
that are compared come from one run of this script, in turns. Prints Markdown.

    python benchmarks/training_speed.py overhead
    python benchmarks/training_speed.py processes
    python benchmarks/training_speed.py before ../older-checkout
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.systems import all_systems, preset
from soundreel.training import run
from soundreel.training.loop import TrainConfig
from soundreel.training.objectives import StepObjective
from soundreel.training.trackers import read_log

HERE = Path(__file__).parents[1]
PRESETS = {
    "overhead": ("mm-diffusion-small", "mm-diffusion-sr-small", "mm-ldm-small", "joint-flow-small"),
    "processes": ("mm-diffusion-small", "mm-ldm-small"),
    "before": ("mm-diffusion-small", "mm-diffusion-sr-small", "mm-ldm-small"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=PRESETS)
    parser.add_argument("checkout", nargs="?", type=Path, help="an older one, for `before`")
    parser.add_argument("--preset", action="append")
    parser.add_argument("--steps", type=int, default=8, help="of which the first two do not count")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.preset or PRESETS[arguments.what]:
            data = training_data(Path(folder), name)
            if arguments.what == "overhead":
                print_overhead(name, data, Path(folder) / name, arguments.steps)
            else:
                compare(name, data, Path(folder) / name, arguments)


def training_data(folder: Path, name: str) -> Path:
    """Render and prepare scenes as a preset wants them."""
    config = preset(name)
    clip = getattr(config, "clip", None)
    size = config.network.size if clip is None else clip.height
    rate, length_s = ("10", 1.6) if clip is None else (str(clip.frame_rate), 2 * clip.duration_s)
    scenes, data = folder / f"{name}-scenes", folder / f"{name}-data"
    command = [sys.executable, "-m", "soundreel", "render", scenes, "--count", "22", "--size", size]
    command += ["--duration-s", float(length_s), "--frame-rate", rate]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    options = PrepareOptions(height=size, width=size, frame_rate=rate, min_duration_s=0.5)
    prepare_dataset(scenes, data, options)
    return data


def shortened(config: Any, steps: int, processes: int = 1) -> dict[str, Any]:
    """Return what makes every stage last so many steps, divisible among so many processes."""
    if isinstance(config, TrainConfig):
        total = steps * config.global_batch_size
        return {
            "micro_batch_size": min(config.micro_batch_size, config.global_batch_size // processes),
            "total_samples": total,
            "warmup_samples": 0,
            "decay_samples": 0,
            "log_every": config.global_batch_size,
            "save_every": total,
            "preview_every": 0,
            "precision": "float32",
            "num_threads": 1,
        }
    changes = {}
    for entry in fields(config) if is_dataclass(config) else ():
        inner = shortened(getattr(config, entry.name), steps, processes)
        if inner:
            changes[entry.name] = inner
    return changes


def print_overhead(name: str, data: Path, out: Path, steps: int) -> None:
    """Print the share of a step outside of forward pass, backward pass and optimizer."""
    (own,) = (entry for entry in all_systems() if name in entry.presets)
    config = merged(preset(name), shortened(preset(name), steps))
    spent, marks, totals = [0.0], {}, {}

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = function(*values, **named)
            spent[0] += time.perf_counter() - started
            return result

        return call

    def make_trainee(*values: Any, **named: Any) -> Any:
        trainee = original(*values, **named)
        objective = trainee.objective
        if isinstance(objective, StepObjective):
            objective = StepObjective(timed(objective.prepare), timed(objective.loss))
        else:
            objective = timed(objective)
        trainee.optimizer.step = timed(trainee.optimizer.step)
        return replace(trainee, objective=objective)

    def mark(numbers: Any) -> None:
        stage = next(key for key in numbers if "/" in key).partition("/")[0]
        now = time.perf_counter()
        if stage in marks:
            totals.setdefault(stage, []).append((now - marks[stage], spent[0]))
        marks[stage], spent[0] = now, 0.0

    original, run.make_trainee = run.make_trainee, make_trainee
    backward, torch.Tensor.backward = torch.Tensor.backward, timed(torch.Tensor.backward)
    try:
        own.train(config, data, out, trackers=lambda: [mark])
    finally:
        run.make_trainee, torch.Tensor.backward = original, backward
    for stage, found in totals.items():
        shares = [1 - inner / whole for whole, inner in found[1:]]
        seconds = statistics.median(whole for whole, _ in found[1:])
        print(
            f"| {name} | {stage} | {seconds:.2f} s | {statistics.median(shares):.1%} |", flush=True
        )


def merged(config: Any, changes: dict[str, Any]) -> Any:
    """Return a configuration with changes by name, one within another."""
    inner = {
        name: merged(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(config, **inner)


def compare(name: str, data: Path, out: Path, arguments: argparse.Namespace) -> None:
    """Print seconds per step of both sides by stage, and their ratio."""
    changes = out.with_suffix(".yaml")
    before = arguments.what == "before"
    settings = shortened(preset(name), arguments.steps, processes=1 if before else 2)
    changes.write_text(json.dumps(settings))
    sides: dict[str, tuple[Path, int]] = {"after": (HERE, 1)}
    sides |= {"before": (arguments.checkout.resolve(), 1)} if before else {"two": (HERE, 2)}
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(arguments.turns):
        for side, (checkout, processes) in sides.items():
            folder = out / f"{side}{turn}"
            train(name, data, folder, changes, checkout, processes)
            for log in sorted(folder.rglob("log.jsonl")):
                found = [line["samples_per_s"] for line in read_log(log)][2:]
                stage = str(log.parent.relative_to(folder))
                rates.setdefault(stage, {}).setdefault(side, []).extend(found)
    for stage, found in rates.items():
        first, second = (statistics.median(found[side]) for side in sides)
        ratio = first / second if arguments.what == "before" else second / first
        print(f"| {name} | {stage} | {first:.2f}/s | {second:.2f}/s | {ratio:.2f} |", flush=True)


def train(name: str, data: Path, out: Path, changes: Path, checkout: Path, processes: int) -> None:
    """Train a preset with the command of a checkout."""
    program = [sys.executable, "-m"]
    if processes > 1:
        program += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [*program, "soundreel", "train", name, "--data", data, "--out", out]
    command += (
        [] if isinstance(getattr(preset(name), "train", None), TrainConfig) else ["--all-stages"]
    )
    done = subprocess.run(
        [*map(str, command), "--config", str(changes)],
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{checkout}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
