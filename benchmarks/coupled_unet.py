"""Speed and memory of the Coupled U-Net, published and small, beside the machine's matmul rate.

Every case runs in a process of its own, so that its peak memory is its own. Prints Markdown.

    python benchmarks/coupled_unet.py             # all cases; the published size takes minutes
    python benchmarks/coupled_unet.py --size small
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from soundreel.systems.mm_diffusion import presets as mm_diffusion
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet
from soundreel.types import AV

SIZES = {"published": mm_diffusion.landscape, "small": mm_diffusion.small}
WORK = ("forward", "training step")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, action="append")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        size, work, precision, repeats = arguments.case.split(",")
        print(json.dumps(measure(size, work, precision, int(repeats), arguments.threads)))
        return
    print(f"torch {torch.__version__}, {arguments.threads} threads, batch of one clip\n")
    print("| network | work | precision | s | TFLOP | GFLOP/s | of matmul | peak GB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in arguments.size or SIZES:
        for work in WORK:
            for precision in PRECISIONS:
                repeats = 1 if size == "published" else 5
                case = f"{size},{work},{precision},{repeats}"
                command = [sys.executable, __file__, "--case", case]
                command += ["--threads", str(arguments.threads)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"| {size} | {work} | {precision} | failed: {done.stderr[-200:]} |")
                    continue
                r = json.loads(done.stdout)
                rate = r["flop"] / r["seconds"] / 1e9
                print(
                    f"| {size} | {work} | {precision} | {r['seconds']:.2f}"
                    f" | {r['flop'] / 1e12:.3f} | {rate:.0f} | {rate / r['matmul']:.0%}"
                    f" | {r['peak_gb']:.2f} |",
                    flush=True,
                )


def measure(size: str, work: str, precision: str, repeats: int, threads: int) -> dict[str, float]:
    """Best time of a few, work counted, peak memory of this process, matmul rate measured here."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    config = SIZES[size]()
    dtype = PRECISIONS[precision]
    network = CoupledUNet(config.unet)
    # The published network's activations for a backward pass would not fit most machines.
    network.recompute = size == "published"
    generator = torch.Generator().manual_seed(0)
    x = AV(
        torch.randn(1, *config.clip.video_shape, generator=generator),
        torch.randn(1, *config.clip.audio_shape, generator=generator),
    )
    timestep = torch.tensor([500])

    def run() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            if work == "forward":
                with torch.no_grad():
                    network.eval()(x, timestep)
                return
            y = network.train()(x, timestep)
        sum(t.square().mean() for t in y.tensors).backward()
        network.zero_grad(set_to_none=True)

    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": min(seconds),
        "flop": count_flop(size, work),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "matmul": matmul_rate(dtype),
    }


def count_flop(size: str, work: str) -> int:
    """Multiplications and additions of one run, counted without computing anything."""
    config = SIZES[size]()
    with torch.device("meta"):
        network = CoupledUNet(config.unet).train()
        x = AV(torch.empty(1, *config.clip.video_shape), torch.empty(1, *config.clip.audio_shape))
        timestep = torch.tensor([500])
    with FlopCounterMode(display=False) as counter:
        y = network(x, timestep)
        if work != "forward":
            sum(t.square().mean() for t in y.tensors).backward()
    return counter.get_total_flops()


def matmul_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of a square matrix product in this precision."""
    a, b = torch.randn(2, 2048, 2048).to(dtype)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(seconds) / 1e9


if __name__ == "__main__":
    main()
