"""`soundreel evaluate REF GEN`: metrics with intervals and a one-file report."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from soundreel import __version__
from soundreel.checkpoints.store import INDEX_FILE
from soundreel.cli.clip_sources import Item, clip_items, set_sha256
from soundreel.cli.main import write
from soundreel.cli.output import check_folder
from soundreel.cli.prompts import find_prompts
from soundreel.cli.render import parse_frame_rate
from soundreel.data.manifest import DATASET_FILE
from soundreel.device import find_device
from soundreel.errors import SoundreelError
from soundreel.files import write_text
from soundreel.metrics.copies import copies_of_training
from soundreel.metrics.evaluation import Evaluation, check_counts, evaluate_sets
from soundreel.metrics.extractors import Extractor, build_extractors
from soundreel.metrics.measure import MeasuredSet, measure_set
from soundreel.metrics.memorisation import Memorisation
from soundreel.metrics.report import Shown, ShownClip, ShownPair, write_report
from soundreel.metrics.sync.score import Sync
from soundreel.progress import progress_bar
from soundreel.request import check_seed

DEFAULT_METRICS = ("fad/yamnet", "kvd/efficientnet-lite0")
PAIRS_SHOWN = 3  # of the nearest neighbours in each modality


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments:
    """Compare generated clips with real ones and write a report in one HTML file."""

    ref: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REF")]
    """Real clips: a folder of videos (sub-folders are classes) or a prepared data set."""
    gen: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GEN")]
    """Generated clips: a folder, a prepared data set, or a model to sample from."""
    out: Path = Path("report.html")
    """The report; the same numbers go beside it as .json."""
    overwrite: bool = False
    """Replace a report that is there already."""
    metrics: tuple[str, ...] = DEFAULT_METRICS
    """Distances to compute. Official names need the official weights."""
    weights: dict[str, Path] = field(default_factory=dict)
    """Extractor names and files of official weights (.pt, .pth, .safetensors): i3d FILE ..."""
    train: Path | None = None
    """Training clips of the model, to look for copies of: a folder, or a prepared data set, of
    which the split `train` is taken. REF is then to be clips that were not trained on."""
    duration_s: float = 1.6
    """Length of every clip that is compared; shorter ones are left out."""
    frame_rate: str = "10"
    """Frames per second given to the extractors; sync is measured at the clips' own rate."""
    prompts: Path | None = None
    """Captions that a model is sampled with in turn: a CSV with a column caption, or one a line.
    Default: those of REF, where it is a prepared data set with captions and the model reads
    them."""
    max_clips: int | None = None
    """Draw so many clips of each side, the same ones for the same seed."""
    split: str = ""
    """Split of prepared data sets; empty takes all."""
    seed: int = 0
    """Seed of the drawn clips, of the intervals, and of the samples of a model."""
    num_shown: int = 6
    """Clips of each side to play in the report."""
    device: str | None = None
    """Device of extractors and a model: cpu, cuda, cuda:1 ... Default: CUDA where there is
    one."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Precision of a model that is sampled. Default: the model's own. Extractors keep float32."""


def evaluate(arguments: Annotated[EvaluateArguments, tyro.conf.arg(name="")]) -> int:
    """Compare generated clips with real ones."""
    _check(arguments)
    check_seed(arguments.seed)
    extractors = build_extractors(
        arguments.metrics, arguments.weights, find_device(arguments.device)
    )
    sources = _sources(arguments)
    check_counts(len(sources["real"]), len(sources["generated"]))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar("real clips") as advance:
        real = _measure(sources["real"], extractors, arguments, advance)
    with progress_bar("generated clips") as advance:
        generated = _measure(sources["generated"], extractors, arguments, advance)
    copies = None
    if arguments.train is not None:
        with progress_bar("training clips") as advance:
            copies = copies_of_training(
                sources["training"], real, generated, arguments.duration_s, advance
            )
    hashes = {extractor.name: extractor.weights_sha256 for extractor in extractors}
    result = evaluate_sets(
        real,
        generated,
        arguments.metrics,
        hashes,
        arguments.seed,
        _provenance(arguments, sources, hashes),
        copies,
    )
    with progress_bar("players") as advance:
        write_report(
            arguments.out, result, _shown(sources, real, generated, result, arguments, advance)
        )
    write_text(_numbers(arguments.out), json.dumps(result.to_json(), indent=1) + "\n")
    _print(result, arguments.out)
    return 0


def _sources(arguments: EvaluateArguments) -> dict[str, list[Item]]:
    """Find the clips of each side by its name."""
    prompts = find_prompts(arguments.prompts, arguments.ref, arguments.split, arguments.seed)
    if arguments.prompts is not None and not (arguments.gen / INDEX_FILE).is_file():
        raise SoundreelError("--prompts is for a model; GEN holds clips already")
    sources = {
        name: clip_items(
            source,
            arguments.split,
            arguments.max_clips,
            arguments.seed,
            arguments.duration_s,
            device=arguments.device,
            precision=arguments.precision,
            prompts=prompts,
            needs_prompts=arguments.prompts is not None,
        )
        for name, source in (("real", arguments.ref), ("generated", arguments.gen))
    }
    if arguments.train is not None:
        is_prepared = (arguments.train / DATASET_FILE).is_file()
        sources["training"] = clip_items(arguments.train, "train" if is_prepared else "", None, 0)
    return sources


def _check(arguments: EvaluateArguments) -> None:
    parse_frame_rate(arguments.frame_rate)
    if arguments.ref.resolve() == arguments.gen.resolve():
        raise SoundreelError(f"REF and GEN are one folder, {arguments.ref}; give two")
    if arguments.train is not None and (arguments.train / INDEX_FILE).is_file():
        raise SoundreelError(
            f"--train {arguments.train} is a model; give the clips it was trained on"
        )
    if arguments.train is not None and arguments.train.resolve() == arguments.gen.resolve():
        raise SoundreelError(f"--train and GEN are one folder, {arguments.gen}; give two")
    if (
        arguments.train is not None
        and arguments.train.resolve() == arguments.ref.resolve()
        and arguments.split in ("", "train")
    ):
        raise SoundreelError("REF holds the training clips; name its held-out ones: --split test")
    if arguments.duration_s <= 0 or arguments.num_shown < 0:
        raise SoundreelError("--duration-s must be positive and --num-shown not negative")
    if arguments.max_clips is not None and arguments.max_clips < 3:
        raise SoundreelError(f"--max-clips must be at least 3, got {arguments.max_clips}")
    if arguments.out.suffix != ".html":
        raise SoundreelError(f"--out must end in .html, got {arguments.out}")
    check_folder(arguments.out.parent)
    there = [path for path in (arguments.out, _numbers(arguments.out)) if path.exists()]
    if there and not arguments.overwrite:
        raise SoundreelError(
            f"{there[0]} is there already; choose another --out, or add --overwrite to replace it"
        )
    if any(not path.is_file() for path in there):
        raise SoundreelError(f"{there[0]} is no file; choose another --out")


def _numbers(out: Path) -> Path:
    """Return where the report's numbers go."""
    return out.with_suffix(".json")


def _measure(
    items: Sequence[Item],
    extractors: Sequence[Extractor],
    arguments: EvaluateArguments,
    advance: Callable[[int, int], None],
) -> MeasuredSet:
    rate = parse_frame_rate(arguments.frame_rate)
    device = find_device(arguments.device)
    return measure_set(items, extractors, arguments.duration_s, rate, advance, device)


def _shown(
    sources: dict[str, list[Item]],
    real: MeasuredSet,
    generated: MeasuredSet,
    result: Evaluation,
    arguments: EvaluateArguments,
    advance: Callable[[int, int], None],
) -> Shown:
    """Load the clips to play: some spread evenly over each set, and the nearest neighbours."""
    items = {name: {item.name: item for item in found} for name, found in sources.items()}
    pairs = min(PAIRS_SHOWN, arguments.num_shown)
    total = sum(min(arguments.num_shown, len(own.names)) for own in (real, generated)) + 2 * pairs
    done = count(1)

    @cache  # a clip may be the neighbour of several, and sampling one again takes its time
    def show(name: str, clip: str, start_s: float = 0.0) -> ShownClip:
        return ShownClip.of(clip, items[name][clip].load(arguments.duration_s, start_s))

    def clips(name: str, own: MeasuredSet) -> list[tuple[ShownClip, Sync | None]]:
        shown = []
        for k in _spread(len(own.names), arguments.num_shown):
            shown.append((show(name, own.names[k]), own.sync[k]))
            advance(next(done), total)
        return shown

    def nearest(copies: Memorisation) -> list[ShownPair]:
        shown = []
        for neighbour in copies.neighbours[:pairs]:
            own = show("generated", neighbour.generated)
            known = show(result.copies.known, neighbour.known, neighbour.start_s)
            shown.append(ShownPair(neighbour=neighbour, generated=own, known=known))
            advance(next(done), total)
        return shown

    return Shown(
        real=clips("real", real),
        generated=clips("generated", generated),
        by_picture=nearest(result.copies.picture),
        by_sound=nearest(result.copies.sound),
    )


def _spread(total: int, wanted: int) -> list[int]:
    """Return indices spread evenly, so that every class has a chance to be seen."""
    number = min(wanted, total)
    return [round(k * (total - 1) / max(number - 1, 1)) for k in range(number)]


def _provenance(
    arguments: EvaluateArguments, sources: dict[str, list[Item]], hashes: dict[str, str]
) -> dict[str, Any]:
    paths = {"real": arguments.ref, "generated": arguments.gen}
    if arguments.train is not None:
        paths["training"] = arguments.train
    return {
        "soundreel": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seed": arguments.seed,
        "duration_s": arguments.duration_s,
        "frame_rate": arguments.frame_rate,
        "split": arguments.split,
        "metrics": list(arguments.metrics),
        "weights_sha256": hashes,
    } | {
        name: {
            "name": path.name,
            "found": len(sources[name]),
            "sha256": set_sha256(sources[name]),
        }
        for name, path in paths.items()
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
    for name, copies in (("picture", result.copies.picture), ("sound", result.copies.sound)):
        near = f"{name}, nearest {result.copies.known} clip"
        write(
            f"{near:<32} {copies.median_distance:10.2f}  (1 is ordinary), "
            f"suspiciously near {copies.share_suspicious:.0%}"
        )
    for warning in result.warnings:
        write(f"note: {warning}", error=True)
    left_out = len(result.skipped_real) + len(result.skipped_generated)
    write(f"{result.num_generated} generated, {result.num_real} real, {left_out} left out; {out}")
