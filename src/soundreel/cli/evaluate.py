"""`soundreel evaluate REF GEN`: metrics with intervals and a one-file report."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from soundreel import __version__
from soundreel.cli.clip_sources import Item, clip_items, set_sha256
from soundreel.cli.main import write
from soundreel.cli.progress import progress_bar
from soundreel.cli.render import parse_frame_rate
from soundreel.data.manifest import write_atomically
from soundreel.metrics.evaluation import Evaluation, evaluate_sets
from soundreel.metrics.extractors import METRICS, Extractor, build_extractor
from soundreel.metrics.measure import MeasuredSet, measure_set
from soundreel.metrics.report import ShownClip, write_report

DEFAULT_METRICS = ("fad/yamnet", "kvd/efficientnet-lite0")


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Compare generated clips with real ones and write a report in one HTML file."""

    ref: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REF")]
    """Real clips: a folder of videos (sub-folders are classes) or a prepared data set."""
    gen: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GEN")]
    """Generated clips: a folder, a prepared data set, or a model to sample from."""
    out: Path = Path("report.html")
    """The report; the same numbers go beside it as .json."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """Which distances. Official names need the official weights."""
    weights: dict[str, Path] = field(default_factory=dict)
    """Extractor names and weight files (safetensors), such as yamnet FILE i3d FILE."""
    duration_s: float = 1.6
    """Length of every clip that is compared; shorter ones are left out."""
    frame_rate: str = "10"
    """Frames per second given to the extractors; sync is measured at the clips' own rate."""
    max_clips: int | None = None
    """Draw so many clips of each side, the same ones for the same seed."""
    split: str = ""
    """Split of prepared data sets; empty takes all."""
    seed: int = 0
    """Of the drawn clips, of the intervals, and of the samples of a model."""
    num_shown: int = 6
    """Clips of each side to play in the report."""


def evaluate(arguments: Annotated[EvaluateArguments, tyro.conf.arg(name="")]) -> int:
    """Compare generated clips with real ones."""
    _check(arguments)
    extractors: dict[str, Extractor] = {}
    for name in arguments.metrics:
        if METRICS.get(name) is None or METRICS[name].extractor not in extractors:
            extractor = build_extractor(name, arguments.weights)
            extractors[extractor.name] = extractor
    items = [
        clip_items(source, arguments.split, arguments.max_clips, arguments.seed)
        for source in (arguments.ref, arguments.gen)
    ]
    measured = []
    for title, found in zip(("real clips", "generated clips"), items, strict=True):
        with progress_bar(title) as advance:
            measured.append(_measure(found, list(extractors.values()), arguments, advance))
    hashes = {name: extractor.weights_sha256 for name, extractor in extractors.items()}
    result = evaluate_sets(
        measured[0],
        measured[1],
        arguments.metrics,
        hashes,
        arguments.seed,
        _provenance(arguments, items, hashes),
    )
    shown = [_shown(found, known, arguments) for found, known in zip(items, measured, strict=True)]
    write_report(arguments.out, result, *shown)
    write_atomically(
        arguments.out.with_suffix(".json"), json.dumps(result.to_json(), indent=1) + "\n"
    )
    _print(result, arguments.out)
    return 0


def _check(arguments: EvaluateArguments) -> None:
    parse_frame_rate(arguments.frame_rate)
    if arguments.ref.resolve() == arguments.gen.resolve():
        raise ValueError(f"REF and GEN are one folder, {arguments.ref}; give two")
    if arguments.duration_s <= 0 or arguments.num_shown < 0:
        raise ValueError("--duration-s must be positive and --num-shown not negative")
    if arguments.max_clips is not None and arguments.max_clips < 3:
        raise ValueError(f"--max-clips must be at least 3, got {arguments.max_clips}")
    if not arguments.out.parent.is_dir():
        raise ValueError(f"--out {arguments.out}: there is no folder {arguments.out.parent}")
    if arguments.out.suffix != ".html":
        raise ValueError(f"--out must end in .html, got {arguments.out}")


def _measure(
    items: Sequence[Item],
    extractors: Sequence[Extractor],
    arguments: EvaluateArguments,
    advance: Callable[[int, int], None],
) -> MeasuredSet:
    rate = parse_frame_rate(arguments.frame_rate)
    return measure_set(items, extractors, arguments.duration_s, rate, advance)


def _shown(
    items: Sequence[Item], measured: MeasuredSet, arguments: EvaluateArguments
) -> list[ShownClip]:
    """Clips spread evenly over the set, so that every class has a chance to be seen."""
    count = min(arguments.num_shown, len(measured.names))
    by_name = {item.name: item for item in items}
    chosen = [round(k * (len(measured.names) - 1) / max(count - 1, 1)) for k in range(count)]
    return [
        ShownClip(
            name=measured.names[k],
            clip=by_name[measured.names[k]].load(arguments.duration_s),
            sync=measured.sync[k],
        )
        for k in chosen
    ]


def _provenance(
    arguments: EvaluateArguments, items: Sequence[Sequence[Item]], hashes: dict[str, str]
) -> dict[str, Any]:
    return {
        "soundreel": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": arguments.seed,
        "duration_s": arguments.duration_s,
        "frame_rate": arguments.frame_rate,
        "metrics": list(arguments.metrics),
        "weights_sha256": hashes,
        "real": {
            "name": arguments.ref.name,
            "found": len(items[0]),
            "sha256": set_sha256(items[0]),
        },
        "generated": {
            "name": arguments.gen.name,
            "found": len(items[1]),
            "sha256": set_sha256(items[1]),
        },
    }


def _print(result: Evaluation, out: Path) -> None:
    for metric in result.metrics:
        e = metric.overall
        write(f"{metric.name:<32} {e.value:10.4g}  ({e.low:.4g} to {e.high:.4g}, {e.level:.0%})")
    for name, report in (("generated", result.sync_generated), ("real", result.sync_real)):
        if report.overall is None:
            write(f"sync, {name:<26} not measured: clips too short or rates too low")
        else:
            s = report.overall
            write(
                f"sync, {name:<26} {s.mean_score:10.2f}  in sync {s.share_in_sync:.0%}, "
                f"mean |offset| {s.mean_absolute_offset_s:.3f} s"
            )
    left_out = len(result.skipped_real) + len(result.skipped_generated)
    write(f"{result.num_generated} generated, {result.num_real} real, {left_out} left out; {out}")
