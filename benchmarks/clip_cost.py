"""What a clip costs with each of several models: seconds, FLOP and memory, measured in one run.

    python benchmarks/clip_cost.py NAME=MODEL ... [--steps N ...]

Prints a Markdown table. Seconds are CPU time of one thread, the median of three, in the precision
that the machine computes fastest; FLOP are of products and convolutions, as PyTorch counts them;
memory is the peak of a process that loads the model and makes clips. With `--steps` a row
for each number of steps, else one with the model's own.
"""

import argparse
import json
import subprocess
import sys
from typing import Any

import torch
from bench_cases import cpu_seconds, flop_of, peak_gb

import soundreel

HEAD = """| | steps | clip | s alone | s of eight, each | TFLOP | peak GB |
| --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--steps", type=int, nargs="+", default=[])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.models[0], options.steps)))
        return
    print(HEAD)
    for source in options.models:
        name, _, model = source.rpartition("=")
        for steps in options.steps or [0]:
            command = [sys.executable, __file__, model, "--one", "--steps", str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            cells = json.loads(done.stdout.splitlines()[-1])
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def measured(model: str, steps: list[int]) -> list[str]:
    """Return the cells of a row."""
    torch.set_num_threads(1)
    pipeline = soundreel.load(model)
    spec = pipeline.clip
    how: dict[str, Any] = {"label": 0} if pipeline.class_names else {}
    how |= {"num_steps": steps[0]} if steps[0] else {}

    def make(count: int) -> None:
        pipeline.generate(count=count, batch_size=count, seed=0, progress=None, **how)

    alone, together = cpu_seconds(lambda: make(1), 3), cpu_seconds(lambda: make(8), 3) / 8
    peak = peak_gb()
    size = f"{spec.num_frames} frames of {spec.width}x{spec.height}, {float(spec.duration_s):.1f} s"
    flop = flop_of(lambda: make(1))
    used = str(steps[0] or pipeline.options.num_steps)
    costs = [f"{alone:.2f}", f"{together:.2f}", f"{flop / 1e12:.3f}", f"{peak:.2f}"]
    return [used, size, *costs]


if __name__ == "__main__":
    main()
