"""Loss curves of a training run as one PNG, by modality and by quarter of the noise chain.

python benchmarks/plot_log.py RUN PICTURE.png    (needs the extra `plots`)
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from soundreel.training.trackers import read_log


def main() -> None:
    run, picture = Path(sys.argv[1]), Path(sys.argv[2])
    lines = read_log(run / "log.jsonl")
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True, layout="constrained")
    for axis, modality in zip(axes, ("video", "audio"), strict=True):
        for suffix, label in (
            ("", "all"),
            ("_q0", "least noise"),
            ("_q1", "second quarter"),
            ("_q2", "third quarter"),
            ("_q3", "most noise"),
        ):
            name = f"unet/mse_{modality}{suffix}"
            points = [(line["samples"], line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True), label=label, lw=2 if not suffix else 0.8)
        axis.set(yscale="log", title=modality, xlabel="training clips")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean squared error of the noise")
    axes[1].legend(fontsize=8)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
