"""Quality of a model of rendered scenes with sound: class, sync, distances, copies.

    python benchmarks/scene_quality.py MODEL --train-data data/prepared/scenes64 --out OUT
    python benchmarks/scene_quality.py --generated FOLDER --train-data ... --out OUT

Generated clips are measured beside held-out renders (new seeds), by the same functions, and beside
chance; the Markdown that is printed says what each table holds. OUT keeps the renders, the
classifiers and the generated clips, so that another model is measured against exactly the same, and
an interrupted call goes on; OUT/NAME.json holds the numbers.

FOLDER holds clips in folders named after their kinds, as `soundreel render` writes them. Clips in
other folders, and those of models without classes, were asked for nothing: where a kind is needed,
theirs is the one that the picture shows.
"""

import argparse
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scene_classifiers import open_classifiers
from scene_clips import (
    SceneClip,
    claim,
    fitted,
    from_folder,
    generated,
    held_out,
    measured,
    spec_of,
    spec_to_json,
)
from scene_copies import nearest_training
from scene_tables import class_table, copies_table, distance_table, sync_table

from soundreel import __version__
from soundreel.cli.clip_sources import clip_items, model_sha256
from soundreel.data.manifest import DATASET_FILE, DatasetInfo
from soundreel.files import write_text
from soundreel.metrics.evaluation import evaluate_sets
from soundreel.metrics.extractors import build_extractors
from soundreel.metrics.measure import MeasuredSet
from soundreel.progress import progress_bar
from soundreel.systems import load
from soundreel.types import ClipSpec

METRICS = ("kvd/efficientnet-lite0", "fad/yamnet")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a model folder")
    parser.add_argument("--generated", type=Path, help="clips already made, in place of a model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", help="of the row and of its files; default: from the folder")
    parser.add_argument("--train-data", type=Path, help="prepared data set; else no copies search")
    parser.add_argument("--count", type=int, default=256, help="clips of each set")
    parser.add_argument("--seed", type=int, default=0, help="of the samples and of the intervals")
    parser.add_argument("--reference-seed", type=int, default=1000, help="of the held-out renders")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--options", default="{}", help="more arguments of `generate` as JSON")
    parser.add_argument("--duration-s", type=float, default=1.6, help="of clips in a folder")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if (options.model is None) == (options.generated is None):
        parser.error("give either a model or --generated FOLDER")
    return options


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    name, clips, spec, about = clips_to_measure(options)
    sets = {"generated": clips}
    for turn, (what, folder) in enumerate(render_folders(options).items()):
        with progress_bar(f"renders, {what}") as advance:
            seed = options.reference_seed + turn
            sets[what] = held_out(folder, spec, options.count, seed, advance)
    with progress_bar("classifiers") as advance:
        classifiers = open_classifiers(options.out, options.train_data, spec, advance)
    rng = np.random.default_rng(options.seed)
    print(f"## {name}\n\n{len(clips)} generated clips against {len(sets['held out'])} renders.")
    seen = {what: classifiers.classes([c.clip for c in own]) for what, own in sets.items()}
    numbers: dict[str, Any] = {
        "model": name,
        "about": about,
        "spec": spec_to_json(spec),
        "count": {what: len(own) for what, own in sets.items()},
        "seeds": {"generated": options.seed, "renders": options.reference_seed},
        "versions": {"soundreel": __version__, "torch": torch.__version__},
        "class": class_table(sets, seen, rng),
        "sync": sync_table(sets, seen, rng),
    }
    numbers |= measure_distances(sets, spec, options, rng)
    path = options.out / f"{name}.json"
    write_text(path, json.dumps(plain(numbers), indent=1) + "\n")


def render_folders(options: argparse.Namespace) -> dict[str, Path]:
    """Of the renders that are compared with, and of others that stand beside generated clips."""
    seed = options.reference_seed
    return {
        "held out": options.out / f"renders-{seed}",
        "other": options.out / f"renders-{seed + 1}",
    }


def clips_to_measure(
    options: argparse.Namespace,
) -> tuple[str, list[SceneClip], ClipSpec, dict[str, Any]]:
    """Name, clips, their sizes and rates, and where they came from."""
    if options.generated is not None:
        name = options.name or options.generated.resolve().name
        clips = from_folder(options.generated, options.count, options.duration_s)
        spec = spec_of(clips[0].clip)
        if options.train_data is not None:
            info = DatasetInfo.load(options.train_data)
            spec = info.spec(round(options.duration_s * info.frame_rate))
        return name, fitted(clips, spec), spec, {"clips": options.generated.name}
    pipeline, folder = load(options.model), Path(options.model).resolve()
    name = options.name or (folder.parent.name if folder.name == "model" else folder.name)
    about = {
        "model_sha256": model_sha256(folder) if folder.is_dir() else str(options.model),
        "seed": options.seed,
        "options": json.loads(options.options),
    }
    claim(options.out / name, about)
    with progress_bar("generating") as advance:
        clips = generated(
            pipeline,
            options.out / name,
            options.count,
            options.seed,
            options.batch_size,
            about["options"],
            advance,
        )
    return name, fitted(clips, pipeline.clip), pipeline.clip, about


def measure_distances(
    sets: dict[str, list[SceneClip]],
    spec: ClipSpec,
    options: argparse.Namespace,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Distances between sets as `soundreel evaluate` has them, and from clips to training clips."""
    extractors = build_extractors(METRICS, {})
    hashes = {extractor.name: extractor.weights_sha256 for extractor in extractors}
    features: dict[str, MeasuredSet] = {}
    for what, clips in sets.items():
        with progress_bar(f"features, {what}") as advance:
            folder = render_folders(options).get(what)
            cache = None if folder is None else folder / "features.safetensors"
            features[what] = measured(clips, cache, extractors, spec, advance)
    real = features["held out"]
    found = {
        what: list(evaluate_sets(real, features[what], METRICS, hashes, options.seed, {}).metrics)
        for what in ("generated", "other")
    }
    numbers: dict[str, Any] = {"distances": distance_table(found)}
    if options.train_data is not None:
        is_prepared = (options.train_data / DATASET_FILE).is_file()
        training = clip_items(options.train_data, "train" if is_prepared else "", None, 0)
        with progress_bar("training clips") as advance:
            near = nearest_training(training, features, float(spec.duration), advance)
        numbers["copies"] = copies_table(near, features["generated"], len(training), rng)
    return numbers


def plain(value: Any) -> Any:
    """Values that JSON knows; nan becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.floating | float):
        return None if np.isnan(value) else float(value)
    return value


if __name__ == "__main__":
    main()
