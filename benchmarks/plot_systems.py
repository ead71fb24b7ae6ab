"""Quality of several systems against training minutes and against seconds a clip, as one PNG.

    python benchmarks/plot_systems.py PICTURE.png NAME,MINUTES,SECONDS,REPORT.json ...

REPORT is what `soundreel evaluate --out` writes beside its page. Where MINUTES or SECONDS is left
empty the point is in the other row alone. Points of one name are joined; bars are 95 % intervals.
Needs the extra `plots`.
"""

import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_json

LABELS = {"minutes": "minutes of training, one core", "seconds": "seconds a clip, one core"}


def main() -> None:
    picture, *points = sys.argv[1:]
    series: dict[tuple[str, str, str], list[tuple[float, float, float, float]]] = defaultdict(list)
    for point in points:
        name, minutes, seconds, report = point.split(",")
        for metric in read_json(Path(report), SoundreelError)["metrics"]:
            found = metric["overall"]
            for axis, value in (("minutes", minutes), ("seconds", seconds)):
                if value:
                    row = (float(value), found["value"], found["low"], found["high"])
                    series[metric["name"], axis, name].append(row)
    metrics = sorted({metric for metric, _, _ in series})
    figure, axes = plt.subplots(
        len(LABELS), len(metrics), figsize=(4.6 * len(metrics), 6.4), layout="constrained"
    )
    for (metric, axis, name), rows in series.items():
        place = axes[list(LABELS).index(axis)][metrics.index(metric)]
        x, y, low, high = zip(*sorted(rows), strict=True)
        bars = [
            [v - w for v, w in zip(y, low, strict=True)],
            [w - v for v, w in zip(y, high, strict=True)],
        ]
        place.errorbar(x, y, yerr=bars, label=name, marker="o", ms=4, lw=1, capsize=2)
        place.set(xlabel=LABELS[axis], ylabel=metric, yscale="log")
        place.set_xscale("log" if axis == "seconds" else "linear")
        place.grid(alpha=0.3)
        for ruler in (place.xaxis, place.yaxis):
            if ruler.get_scale() == "log":
                ruler.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ruler.set_major_formatter("{x:g}")
            ruler.set_minor_formatter("")
    axes[0][0].legend(fontsize=8)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main()
