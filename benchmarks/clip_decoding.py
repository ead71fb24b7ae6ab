"""How many clips a second are decoded, brought to a model's rates and size, and written again.

    python benchmarks/clip_decoding.py [--clips FOLDER] [--seconds 5]

By default the clips in `examples/clips`; FOLDER is searched for MP4 files. One process; each row is
repeated for some seconds. Prints a Markdown table.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch

from soundreel.clip import Clip
from soundreel.media.framing import Framing

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "clips"
DURATION = Fraction("1.6")


def per_second(function: Callable[[Path], object], paths: list[Path], seconds: float) -> float:
    function(paths[0])
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for path in paths:
            function(path)
        done += len(paths)
    return done / (time.perf_counter() - start)


def fitted(path: Path, size: int) -> Clip:
    """A window as a model of this size takes it."""
    return Clip.load(
        path,
        duration=DURATION,
        frame_rate=10,
        sample_rate=16_000,
        num_channels=1,
        framing=Framing(kind="center", height=size, width=size),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, default=EXAMPLES)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    paths = sorted(options.clips.rglob("*.mp4"))
    if not paths:
        parser.error(f"no MP4 file in {options.clips}")

    print(f"{len(paths)} files, windows of {float(DURATION)} s, PyTorch {torch.__version__}\n")
    print("| what | clips per second |\n| --- | --- |")
    whole = per_second(lambda path: Clip.load(path, duration=DURATION), paths, options.seconds)
    print(f"| decode at the source's size and rates | {whole:.1f} |")
    for size in (32, 64, 128):
        rate = per_second(lambda path, size=size: fitted(path, size), paths, options.seconds)
        print(f"| decode to {size}x{size}, 10 frames/s, 16 kHz mono | {rate:.1f} |")
    with tempfile.TemporaryDirectory() as folder:
        for suffix, name in ((".mp4", "MP4"), (".mkv", "lossless Matroska")):
            target = Path(folder) / f"clip{suffix}"
            clip = fitted(paths[0], 64)
            rate = per_second(lambda _, c=clip, t=target: c.save(t), paths, options.seconds)
            print(f"| write 64x64 as {name} | {rate:.1f} |")


if __name__ == "__main__":
    main()
