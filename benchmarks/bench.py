"""Speed and memory of everything, in one run and as shares of this machine's own rates.

    make bench                                          # all of it, which takes forty minutes
    python benchmarks/bench.py --only networks --quick  # small sizes alone, one repeat

Every case runs in a process of its own, so that its peak memory is its own, and times matrix
products and convolutions before and after the case: its share of their rate is what can be compared
between machines and moments. Writes RESULTS.md and its pictures beside this file.
"""

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from bench_cases import CASES, Case

HERE = Path(__file__).resolve().parent
HEADS = {
    "networks": "| network | work | precision | compiled | s | TFLOP | GFLOP/s | of matmul | of"
    " convolution | peak GB |",
    "attention": "| window attention of the Coupled U-Net | s | times the loop's speed | largest"
    " difference |",
    "clip": "| part of an MM-LDM clip | calls | GFLOP a call | TFLOP a clip | s a clip |",
    "samplers": "| sampler of the model | steps | s | TFLOP | peak GB | distance to 1000 steps |",
    "training": "| preset | stage | a step | update of weights | next batch | rest of the loop |",
    "media": "| one second of video and sound, CPU time | ms | times PyAV's naive way |",
    "metrics": "| metric | clips a second | GFLOP a clip | GFLOP/s | of matmul |",
}
NOTES = {
    "networks": "One clip (or one frame, for super-resolution) at a time, the median of three after"
    " a first; in bfloat16 where the processor is faster in it. *Step* is forward and backward,"
    " its TFLOP without what *recomputed* activations take again. *Of matmul* is the share of a"
    " matrix product's rate in the same precision and process, *of convolution* that of a 3x3"
    " convolution: where MKL leaves AVX-512 idle the first can exceed 100 %.",
    "attention": "The loop is the reference's way, written anew: frame by frame, window gathered by"
    " index, softmax spelled out.",
    "clip": "*published* is counted from shapes alone.",
    "samplers": "Two clips of a class by `--model`. Root mean square of the difference over that of"
    " the pixels / of the short-time magnitudes of the sound.",
    "training": "Small presets with their own batches by one thread in float32; median of the last"
    " four of six steps. Clips are decoded once and kept.",
    "media": "To 64x64 pixels, 10 frames a second, 16 kHz, one thread each. The naive way decodes"
    " all pictures, converts each wanted one (or every one) to RGB at full size and shrinks it."
    " *film* is one of the examples, enlarged; *grain* the worst case, drifting waves with grain"
    " all over: nearly all pictures refer to others, and decoding is most of the work.",
    "metrics": "Features of 16 clips at once, of 16 frames of 64x64 pixels or 1.6 s of sound; the"
    " distance itself takes less.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=HEADS, action="append", help="table; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes alone, one repeat")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", default="", help="of the samplers; default: the embedded one")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of RESULTS.md")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        torch.set_num_threads(arguments.threads)
        torch.set_flush_denormal(True)
        case = Case(**json.loads(arguments.case))
        print(json.dumps(CASES[case.table].measure(case)))
        return
    which = "".join(f" --only {table}" for table in arguments.only or ())
    command = f"python benchmarks/bench.py{which}" if which else "make bench"
    lines = [f"# Speed\n\n{machine(arguments.threads)} Made by `{command}`.\n"]
    found: dict[str, list[tuple[Case, list]]] = {}
    for table in arguments.only or HEADS:
        columns = HEADS[table].count("|") - 1
        lines += [NOTES[table], "", HEADS[table], "| --- " * columns + "|"]
        print("\n".join(lines[-2:]))
        for case in CASES[table].cases(arguments.quick):
            case = replace(case, model=arguments.model)
            rows = run(case, arguments.threads)
            found.setdefault(table, []).append((case, rows))
            for row in rows:
                lines.append("| " + " | ".join(str(cell) for cell in row) + " |")
                print(lines[-1], flush=True)
        lines.append("")
        if table in PLOTS:
            name = f"bench-{table}.png"
            PLOTS[table](found[table], arguments.out / name)
            lines += [f"![{table}]({name})", ""]
        (arguments.out / "RESULTS.md").write_text("\n".join(lines), encoding="utf-8")


def machine(threads: int) -> str:
    """Return what computed, in words."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text(encoding="utf-8").splitlines() if "model name" in x]
        name = models[0].split(":")[1].strip() if models else name
    units = torch.backends.cpu.get_cpu_capability()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{name} ({units}), {threads} threads{gpu}, torch {torch.__version__}."


def run(case: Case, threads: int) -> list[list]:
    """Return the table rows of a case, measured in a process of its own."""
    command = [sys.executable, __file__, "--case", json.dumps(case.__dict__)]
    command += ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][-120:]
        return [[case.name, f"failed: {reason}"]]
    return json.loads(done.stdout.splitlines()[-1])


def plot_samplers(found: list[tuple[Case, list]], path: Path) -> None:
    """Draw distance over steps, a line for each sampler."""
    figure, axes = plt.subplots(figsize=(6, 4))
    rows = [row for _, own in found for row in own if len(row) == 6]
    for name in dict.fromkeys(row[0] for row in rows):
        points = [(row[1], float(row[-1].split(" / ")[0])) for row in rows if row[0] == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="steps", ylabel="distance of the pixels")
    axes.legend()
    figure.savefig(path, dpi=80, bbox_inches="tight")


def plot_networks(found: list[tuple[Case, list]], path: Path) -> None:
    """Draw the share of the matmul rate of every case in float32 that was not compiled."""
    rows = [r for _, rows in found for r in rows if len(r) == 10 and r[2:4] == ["float32", "no"]]
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(rows) + 1))
    axes.barh([f"{row[0]}, {row[1]}" for row in rows], [float(row[7].rstrip("%")) for row in rows])
    axes.axvline(100, color="black", linewidth=1)
    axes.set(xlabel="% of the matrix product's rate")
    axes.invert_yaxis()
    figure.savefig(path, dpi=80, bbox_inches="tight")


PLOTS = {"networks": plot_networks, "samplers": plot_samplers}

if __name__ == "__main__":
    main()
