"""Speed and memory of the Coupled U-Net, forward and training step: a Markdown table.

    python benchmarks/coupled_unet.py [--threads 2] [--repeats 3] [--presets small landscape]

Each row is measured in a process of its own, so that its peak memory is its own. "of matmul" is the
share of the rate that a large matrix product reached in the same process and precision at that
moment. Networks have random weights: values do not change the time. A training step counts as three
forward passes of work; at full size it recomputes its activations, which is not counted.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from soundreel.models.mm_diffusion.coupled_unet import CoupledUNet
from soundreel.presets.mm_diffusion import landscape, small, tiny
from soundreel.types import AV

PRESETS = {"tiny": tiny, "small": small, "landscape": landscape}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def best_of(function: Callable[[], object], repeats: int) -> float:
    """Shortest of several runs in seconds, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_rate(dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP per second of a matrix product."""
    a, b = torch.randn(2, size, size).to(dtype)
    return 2 * size**3 / best_of(lambda: a @ b, 5)


def measure(preset: str, precision: str, kind: str, repeats: int) -> str:
    """One row of the table."""
    config = PRESETS[preset]()
    unet = CoupledUNet(config.unet)
    unet.checkpoint_activations = preset == "landscape"
    noisy = AV(torch.randn(1, *config.clip.video_shape), torch.randn(1, *config.clip.audio_shape))
    timestep = torch.tensor([500])

    def forward() -> AV:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return unet(noisy, timestep)

    def step() -> None:
        loss = sum(x.float().square().mean() for x in forward().tensors)
        unet.zero_grad()
        loss.backward()

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    flop = counter.get_total_flops() * (1 if kind == "forward" else 3)
    rate = matmul_rate(DTYPES[precision])
    if kind == "forward":
        unet.eval()
        with torch.no_grad():
            seconds = best_of(forward, repeats)
    else:
        unet.train()
        seconds = best_of(step, repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    recomputed = "yes" if kind == "training" and unet.checkpoint_activations else ""
    return (
        f"| {preset} | {kind} | {precision} | {seconds:.2f} s | {flop / 1e9:.0f} GFLOP"
        f" | {flop / seconds / 1e9:.0f} GFLOP/s | {flop / seconds / rate:.0%} | {peak:.2f} GiB"
        f" | {recomputed} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["small", "landscape"])
    parser.add_argument("--row", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.row:
        print(measure(*options.row, options.repeats))
        return
    print(f"One clip, {options.threads} threads, PyTorch {torch.__version__}\n")
    print(
        "| preset | what | precision | time | work | rate | of matmul | peak memory | recomputes |"
    )
    print("| --- " * 9 + "|")
    for preset in options.presets:
        for kind in ("forward", "training"):
            for precision in DTYPES:
                row = ["--row", preset, precision, kind]
                rest = ["--threads", str(options.threads), "--repeats", str(options.repeats)]
                subprocess.run([sys.executable, __file__, *row, *rest], check=True)


if __name__ == "__main__":
    main()
