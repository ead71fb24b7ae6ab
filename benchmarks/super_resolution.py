"""Speed of the super-resolution stage: one step for one frame, and what a whole clip costs.

    python benchmarks/super_resolution.py [--threads 2] [--small]

Networks have random weights: values do not change the time. The matrix product measured in the same
run says how fast the machine was at that moment.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from soundreel.systems.super_resolution.network import SuperResolutionUNet
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline, UpscaleConfig
from soundreel.systems.super_resolution.presets import small, super_resolution

CLIP_FRAMES, PUBLISHED_STEPS = 16, 25


def best_of(function: Callable[[], object], repeats: int) -> float:
    """Shortest of several runs in seconds, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def matmul_gflops(dtype: torch.dtype, size: int = 2048) -> float:
    a, b = torch.randn(2, size, size).to(dtype)
    return 2 * size**3 / best_of(lambda: a @ b, 5) / 1e9


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="the small preset, not the full one")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    config = (small() if options.small else super_resolution()).network
    network = SuperResolutionUNet(config).eval()
    noisy = torch.randn(1, 3, config.size, config.size)
    low_res = torch.randn(1, 3, config.low_res_size, config.low_res_size)
    timestep = torch.tensor([500])
    with FlopCounterMode(display=False) as counter:
        network(noisy, low_res, timestep)
    flop = counter.get_total_flops()
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{config.low_res_size} to {config.size} pixels, {parameters:,} parameters")
    print(f"one step for one frame: {flop / 1e9:.1f} GFLOP")
    clip_flop = flop * PUBLISHED_STEPS * CLIP_FRAMES
    print(
        f"{CLIP_FRAMES} frames at {PUBLISHED_STEPS} steps: {clip_flop / 1e12:.1f} TFLOP (computed)"
    )

    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        rate = matmul_gflops(dtype)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            step = best_of(lambda: network(noisy, low_res, timestep), options.repeats)
        print(
            f"{precision}: {step:.2f} s a step and frame, {flop / step / 1e9:.0f} GFLOP/s; matrix "
            f"product {rate:.0f} GFLOP/s; a clip would take "
            f"{step * PUBLISHED_STEPS * CLIP_FRAMES / 60:.1f} min (computed)"
        )
    if options.small:
        pipeline = SuperResolutionPipeline(network)
        frames = low_res.expand(CLIP_FRAMES, -1, -1, -1)
        for batch_frames in (1, 4, 16):
            upscale = UpscaleConfig(num_steps=5, batch_frames=batch_frames)
            start = time.perf_counter()
            pipeline.upscale_video(frames, config=upscale)
            seconds = (time.perf_counter() - start) / CLIP_FRAMES
            print(f"{batch_frames} frames at once, 5 steps: {seconds:.3f} s per frame (measured)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process {peak:.2f} GiB, {options.threads} threads")


if __name__ == "__main__":
    main()
