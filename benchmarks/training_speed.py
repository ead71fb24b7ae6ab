"""Speed of training: overhead of the loop, two processes against one, one checkout against another.

Trains presets for a few steps on rendered scenes with one thread per process, in float32. Figures
that are compared come from one run of this script, in turns. Prints Markdown.

    python benchmarks/training_speed.py overhead
    python benchmarks/training_speed.py processes
    python benchmarks/training_speed.py processes --preset mm-ldm-small --stage generator --batch 4
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
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

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


PARTS = ("network", "update", "data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=PRESETS)
    parser.add_argument("checkout", nargs="?", type=Path, help="an older one, for `before`")
    parser.add_argument("--preset", action="append")
    parser.add_argument("--steps", type=int, default=8, help="of which the first two do not count")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--batch", type=int, default=1, help="clips of a step, as times the preset's"
    )
    parser.add_argument("--stage", help="to which --batch applies, and which is shown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.preset or PRESETS[arguments.what]:
            data = training_data(Path(folder), name, arguments.checkout or HERE)
            if arguments.what == "overhead":
                for row in stage_times(name, data, Path(folder) / name, arguments.steps):
                    print("|", " | ".join(row), "|", flush=True)
            else:
                compare(name, data, Path(folder) / name, arguments)


def training_data(folder: Path, name: str, checkout: Path = HERE) -> Path:
    """Render scenes as a preset wants them, and prepare them with the command of a checkout."""
    config = preset(name)
    clip = getattr(config, "clip", None)
    size = config.network.size if clip is None else clip.height
    rate, length_s = ("10", 1.6) if clip is None else (str(clip.frame_rate), 2 * clip.duration_s)
    scenes, data = folder / f"{name}-scenes", folder / f"{name}-data"
    render = ["render", scenes, "--count", "22", "--size", size]
    render += ["--duration-s", float(length_s), "--frame-rate", rate]
    prepare = ["prepare", scenes, data, "--height", size, "--width", size]
    prepare += ["--frame-rate", rate, "--min-duration-s", "0.5"]
    for command in (render, prepare):
        subprocess.run(
            [sys.executable, "-m", "soundreel", *map(str, command)],
            env={**os.environ, "PYTHONPATH": str(checkout / "src")},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return data


def shortened(
    config: Any, steps: int, processes: int = 1, factor: int = 1, stage: str | None = None
) -> dict[str, Any]:
    """Return what makes every stage last so many steps, divisible among so many processes.

    The batches are `factor` times the preset's. With a stage, only its own are.
    """
    if isinstance(config, TrainConfig):
        batch = factor * config.global_batch_size
        total = steps * batch
        return {
            "global_batch_size": batch,
            "micro_batch_size": min(config.micro_batch_size, batch // processes),
            "total_samples": total,
            "warmup_samples": 0,
            "decay_samples": 0,
            "log_every": batch,
            "save_every": total,
            "preview_every": 0,
            "precision": "float32",
            "num_threads": 1,
        }
    changes = {}
    for entry in fields(config) if is_dataclass(config) else ():
        part = getattr(config, entry.name)
        is_run = getattr(part, "enabled", True)  # an older checkout may not know the others
        own = factor if stage in (None, entry.name) else 1
        inner = shortened(part, steps, processes, own) if is_run else {}
        if inner:
            changes[entry.name] = inner
    return changes


def stage_times(name: str, data: Path, out: Path, steps: int) -> list[list[str]]:
    """Return by stage the seconds of a step, and shares: the update, the next batch, all the rest.

    The update is that of weights, their average and the clipping of gradients; clips are decoded
    once and then kept. What is left over is neither of these nor a forward or backward pass.
    """
    (own,) = (entry for entry in all_systems() if name in entry.presets)
    config = merged(preset(name), shortened(preset(name), steps))
    spent, marks, totals = dict.fromkeys(PARTS, 0.0), {}, {}

    def timed(function: Callable[..., Any], kind: str = "network") -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = function(*values, **named)
            spent[kind] += time.perf_counter() - started
            return result

        return call

    def batches(*values: Any) -> Iterator[Any]:
        read = timed(partial(next, read_batches(*values)), "data")
        while True:
            yield read()

    def make_trainee(*values: Any, **named: Any) -> Any:
        trainee = original(*values, **named)
        objective = trainee.objective
        if isinstance(objective, StepObjective):
            objective = StepObjective(timed(objective.prepare), timed(objective.loss))
        else:
            objective = timed(objective)
        trainee.optimizer.step = timed(trainee.optimizer.step, "update")
        if trainee.ema is not None:
            trainee.ema.update = timed(trainee.ema.update, "update")
        return replace(trainee, objective=objective)

    def mark(numbers: Any) -> None:
        stage = next(key for key in numbers if "/" in key).partition("/")[0]
        now = time.perf_counter()
        if stage in marks:
            totals.setdefault(stage, []).append((now - marks[stage], *spent.values()))
        marks[stage] = now
        spent.update(dict.fromkeys(PARTS, 0.0))

    original, run.make_trainee = run.make_trainee, make_trainee
    read_batches, run.Run._batches = run.Run._batches, batches
    backward, torch.Tensor.backward = torch.Tensor.backward, timed(torch.Tensor.backward)
    norms = torch.nn.utils
    measure, clip = norms.get_total_norm, norms.clip_grads_with_norm_
    norms.get_total_norm = timed(measure, "update")
    norms.clip_grads_with_norm_ = timed(clip, "update")
    try:
        own.train(config, data, out, trackers=lambda: [mark])
    finally:
        run.make_trainee, torch.Tensor.backward = original, backward
        norms.get_total_norm, norms.clip_grads_with_norm_ = measure, clip
        run.Run._batches = read_batches
    rows = []
    for stage, found in totals.items():
        seconds = statistics.median(whole for whole, *_ in found[1:])
        shares = [
            [part / whole for part in (update, data, whole - sum((net, update, data)))]
            for whole, net, update, data in found[1:]
        ]
        medians = [f"{statistics.median(part):.1%}" for part in zip(*shares, strict=True)]
        rows.append([name, stage, f"{seconds:.2f} s", *medians])
    return rows


def merged(config: Any, changes: dict[str, Any]) -> Any:
    """Return a configuration with changes by name, one within another."""
    inner = {
        name: merged(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return replace(config, **inner)


def compare(name: str, data: Path, out: Path, arguments: argparse.Namespace) -> None:
    """Print clips per second by stage of both sides, and their ratio.

    Two processes share the batch of one. They also get the ratio of two trainings that know nothing
    of each other: what the machine itself allows, whose cores share caches and memory.
    """
    before = arguments.what == "before"
    other = {"before": 1} if before else {"two": 2, "beside": 1}
    rates: dict[str, dict[str, list[float]]] = {}
    for turn in range(arguments.turns):
        for side, processes in {"after": 1, **other}.items():
            changes = out.with_suffix(".yaml")
            how = (arguments.steps, 1 if before else 2, arguments.batch, arguments.stage)
            changes.write_text(json.dumps(shortened(preset(name), *how)))
            checkout = arguments.checkout.resolve() if side == "before" else HERE
            folders = [out / f"{side}{turn}-{run}" for run in range(1 + (side == "beside"))]
            started = [train(name, data, at, changes, checkout, processes) for at in folders]
            for process in started:
                if process.wait():
                    sys.exit(f"{checkout}: {process.stderr.read()[-2000:]}")
            for log in sorted(folders[0].rglob("log.jsonl")):
                found = [line["samples_per_s"] for line in read_log(log)][2:]
                stage = str(log.parent.relative_to(folders[0]))
                if arguments.stage not in (None, stage):
                    continue
                rates.setdefault(stage, {}).setdefault(side, []).extend(found)
    for stage, found in rates.items():
        medians = {side: statistics.median(values) for side, values in found.items()}
        first = medians["after"]
        if before:
            shown = [f"{medians['before']:.2f}/s", f"{first / medians['before']:.2f}"]
        else:
            limit = 2 * medians["beside"] / first
            shown = [f"{medians['two'] / first:.2f}", f"{limit:.2f}"]
        print(f"| {name} | {stage} | {first:.2f}/s | {' | '.join(shown)} |", flush=True)


def train(
    name: str, data: Path, out: Path, changes: Path, checkout: Path, processes: int
) -> subprocess.Popen[str]:
    """Start to train a preset with the command of a checkout."""
    program = [sys.executable, "-m"]
    if processes > 1:
        program += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command: list[object] = [*program, "soundreel", "train", name, "--data", data, "--out", out]
    has_one_stage = isinstance(getattr(preset(name), "train", None), TrainConfig)
    command += [] if has_one_stage else ["--all-stages"]
    return subprocess.Popen(
        [*map(str, command), "--config", str(changes)],
        env={**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    main()
