"""Train a small model of your own on a folder of videos, from Python.

    python examples/train_on_a_folder.py VIDEOS OUT [TOTAL_SAMPLES]

Shows how a preset is changed: it is a frozen dataclass, so `replace` makes a copy.
"""

import sys
from dataclasses import replace
from pathlib import Path

from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.systems.mm_diffusion.presets import tiny
from soundreel.systems.mm_diffusion.training import train_mm_diffusion


def main(videos: Path, out: Path, total_samples: int) -> None:
    base = tiny()
    config = replace(
        base,
        data=replace(base.data, flip_probability=0.5),
        train=replace(base.train, total_samples=total_samples, preview_every=total_samples),
        preview=replace(base.preview, count=1, num_steps=5),
    )
    options = PrepareOptions(
        height=config.clip.height, width=config.clip.width, labels="folder", test=0.1
    )
    report = prepare_dataset(videos, out / "data", options)
    print(f"{report.info.counts['clips']:.0f} clips, {report.info.counts['skipped']:.0f} left out")

    finished = train_mm_diffusion(config, out / "data", out / "run", trackers=lambda: [show])
    print(f"{'finished' if finished else 'stopped'}; model in {out / 'run' / 'model'}")


def show(numbers: dict[str, float]) -> None:
    print(
        f"{numbers['samples']:.0f}: video {numbers['unet/mse_video']:.4f}"
        f" audio {numbers['unet/mse_audio']:.4f}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 480)
