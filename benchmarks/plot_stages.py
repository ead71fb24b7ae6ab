"""Loss curves of all stages of a run as one PNG, and its log in one thin file.

python benchmarks/plot_stages.py RUN PICTURE.png LOG.jsonl    (needs the extra `plots`)
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from soundreel.config_io import ConfigError, load_json
from soundreel.json_yaml import read_checked_json
from soundreel.systems import system
from soundreel.training.trackers import read_log

KEPT = 40  # lines of each stage


def main() -> None:
    run, picture, thin = (Path(argument) for argument in sys.argv[1:])
    own = system(read_checked_json(run / "config.json", ConfigError)["system"])
    declared = own.stages(load_json(own.config_type, run / "config.json"))
    stages = [stage for stage in declared if (run / stage.folder / "log.jsonl").is_file()]
    size = (4.3 * len(stages), 3.6)
    figure, axes = plt.subplots(1, len(stages), figsize=size, layout="constrained", squeeze=False)
    rows = []
    for stage, axis in zip(stages, axes[0], strict=True):
        lines = read_log(run / stage.folder / "log.jsonl")
        names = [name for name in lines[-1] if "/" in name and name[-3:-1] != "_q"]
        for name in sorted(n for n in names if "kl" not in n and "grad_norm" not in n):
            points = [(line["samples"], line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True), label=name.partition("/")[2], lw=1)
        axis.set(yscale="log", title=stage.name.replace("_", " "), xlabel="training clips")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
        step = max(len(lines) // KEPT, 1)
        rows += [{"stage": stage.name, **line} for line in [*lines[:-1:step], lines[-1]]]
    figure.savefig(picture, dpi=100)
    thin.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
