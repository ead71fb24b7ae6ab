"""The sets of clips that `scene_quality.py` compares, kept on disk so that they are made once.

Every set lies in a folder of its own as KIND/NUMBER.mkv (lossless), beside an `about.json` that
says what it holds: a folder of something else is refused, one that is incomplete is completed.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save_file

from soundreel.cli.clip_sources import media_files
from soundreel.clip import Clip
from soundreel.data.scenes.render import KINDS, render_clip
from soundreel.data.scenes.sizes import options_for
from soundreel.files import write_text
from soundreel.metrics.extractors import Extractor
from soundreel.metrics.measure import MeasuredSet, measure_set
from soundreel.metrics.streams import ClipStream, stream_of
from soundreel.protocols import Pipeline
from soundreel.types import ClipSpec

ANY_KIND = "any"  # folder of clips that nobody asked a kind of
EXTRA_FRAMES = 4  # a render is longer than a clip, which is a window of it, as in training
SEEDS_PER_KIND = 100_000

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SceneClip:
    """A clip in memory; `label` is its kind, empty where there is none."""

    name: str
    label: str
    clip: Clip

    def open(self, duration_s: float) -> ClipStream:
        """The beginning of the clip, as the package's evaluation asks for it."""
        is_longer = self.clip.duration_s > duration_s
        return stream_of(self.clip.cut(0, duration_s) if is_longer else self.clip)


def claim(folder: Path, about: dict[str, Any]) -> None:
    """Note what a folder holds.

    Raises:
        ValueError: it holds something else.
    """
    path = folder / "about.json"
    if path.is_file():
        if json.loads(path.read_text()) != about:
            raise ValueError(f"{path} tells of other settings; give another --name or --out")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(about, indent=1) + "\n")


def spec_to_json(spec: ClipSpec) -> dict[str, Any]:
    names = ("num_frames", "height", "width", "sample_rate", "num_channels")
    return {name: getattr(spec, name) for name in names} | {"frame_rate": str(spec.frame_rate)}


def rendered_windows(spec: ClipSpec, seed: int, indices: Sequence[int]) -> Iterator[SceneClip]:
    """Windows of rendered scenes, each at a random place, which depends on seed and index alone."""
    options = options_for(spec, num_frames=spec.num_frames + EXTRA_FRAMES)
    for index in indices:
        rendered = render_clip(options, seed, index)
        start = int(np.random.default_rng([seed, index, 1]).integers(EXTRA_FRAMES + 1))
        clip = Clip(rendered.frames, rendered.waveform, spec.frame_rate, spec.sample_rate)
        window = clip.cut(start / spec.frame_rate, spec.num_frames / spec.frame_rate)
        yield SceneClip(f"{rendered.kind}/{index:06d}.mkv", rendered.kind, window)


def held_out(
    folder: Path, spec: ClipSpec, count: int, seed: int, advance: Advance
) -> list[SceneClip]:
    """So many rendered windows, the kinds in turn; those that are missing are rendered."""
    claim(folder, {"seed": seed, "spec": spec_to_json(spec)})
    kinds = list(KINDS)
    names = [f"{kinds[index % len(kinds)]}/{index:06d}.mkv" for index in range(count)]
    missing = [index for index, name in enumerate(names) if not (folder / name).is_file()]
    for done, window in enumerate(rendered_windows(spec, seed, missing), start=1):
        save(window.clip, folder / window.name)
        advance(done, len(missing))
    return [load(folder, folder / name) for name in names]


def generated(
    pipeline: Pipeline,
    folder: Path,
    count: int,
    seed: int,
    batch_size: int,
    options: dict[str, Any],
    advance: Advance,
) -> list[SceneClip]:
    """So many samples of a model, of every class alike; those that are missing are sampled.

    Clip n of class k is that of seed `seed + 100,000 k + n`.
    """
    classes = class_names(pipeline)
    made: list[Path] = []
    for label, kind in enumerate(classes or (ANY_KIND,)):
        own = len(range(label, count, max(1, len(classes))))
        asked: dict[str, Any] = {"label": label} if classes else {}
        for first in range(0, own, batch_size):
            numbers = range(first, min(first + batch_size, own))
            paths = [folder / kind / f"{number:06d}.mkv" for number in numbers]
            if not all(path.is_file() for path in paths):
                clips = pipeline.generate(
                    count=len(paths),
                    seed=seed + SEEDS_PER_KIND * label + first,
                    batch_size=batch_size,
                    **asked,
                    **options,
                )
                for path, clip in zip(paths, clips, strict=True):
                    save(clip, path)
            made += paths
            advance(len(made), count)
    return [load(folder, path) for path in made]


def class_names(pipeline: Pipeline) -> tuple[str, ...]:
    """Kinds that clips can be asked for, in the order of their labels; none without classes.

    Raises:
        ValueError: the model's classes are no rendered scenes.
    """
    if not set(pipeline.class_names) <= set(KINDS):
        raise ValueError(f"no rendered scenes among the classes {', '.join(pipeline.class_names)}")
    return pipeline.class_names


def from_folder(folder: Path, count: int, duration_s: float) -> list[SceneClip]:
    """The beginnings of so many clips below a folder, of every class alike.

    Raises:
        ValueError: the folder holds no clips.
    """
    turns: dict[str, int] = {}
    ranked = []
    for item in media_files(folder):
        turns[item.label] = turns.get(item.label, -1) + 1
        ranked.append((turns[item.label], item.label, item))
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:count]
    if not chosen:
        raise ValueError(f"{folder} holds no video files")
    return [
        SceneClip(item.name, item.label if item.label in KINDS else "", item.load(duration_s))
        for _, _, item in chosen
    ]


def fitted(clips: Sequence[SceneClip], spec: ClipSpec) -> list[SceneClip]:
    """The clips at the sizes and rates of a spec, exactly as long as it says.

    Raises:
        ValueError: a clip is shorter, or lacks a modality.
    """
    result = []
    for item in clips:
        clip = resampled(item.clip, spec).cut(0, spec.num_frames / spec.frame_rate)
        if spec_of(clip) != spec:
            raise ValueError(f"{item.name} does not fit the other clips: {spec_of(clip)}")
        result.append(SceneClip(item.name, item.label, clip))
    return result


def resampled(clip: Clip, spec: ClipSpec) -> Clip:
    """A clip at the sizes and rates of a spec, as long as it is."""
    return clip.resample(
        frame_rate=spec.frame_rate,
        sample_rate=spec.sample_rate,
        size=(spec.height, spec.width),
        num_channels=spec.num_channels,
    )


def spec_of(clip: Clip) -> ClipSpec:
    """Sizes and rates of a clip.

    Raises:
        ValueError: it lacks a modality.
    """
    if clip.frames is None or clip.waveform is None:
        raise ValueError("clips need picture and sound")
    return ClipSpec(
        num_frames=clip.num_frames,
        height=clip.frames.shape[1],
        width=clip.frames.shape[2],
        frame_rate=clip.frame_rate,
        sample_rate=clip.sample_rate,
        num_channels=clip.waveform.shape[0],
    )


def save(clip: Clip, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    clip.save(path)


def load(folder: Path, path: Path) -> SceneClip:
    kind = path.parent.name
    name = str(path.relative_to(folder))
    return SceneClip(name, kind if kind in KINDS else "", Clip.load(path))


def measured(
    clips: Sequence[SceneClip],
    cache: Path | None,
    extractors: Sequence[Extractor],
    spec: ClipSpec,
    advance: Advance,
) -> MeasuredSet:
    """What `soundreel evaluate` takes from a set; features are read from `cache` if they fit.

    Read ones come without sync scores, which are measured elsewhere.
    """
    names = [clip.name for clip in clips]
    about = {"names": json.dumps(names), "weights": " ".join(e.weights_sha256 for e in extractors)}
    if cache is not None and cache.is_file():
        with safe_open(cache, "pt") as file:
            if file.metadata() == about:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return MeasuredSet(
                    names=names,
                    labels=[clip.label for clip in clips],
                    features={e.name: tensors[f"features/{e.name}"] for e in extractors},
                    rows_per_clip={e.name: tensors[f"rows/{e.name}"].tolist() for e in extractors},
                    sync=[None] * len(names),
                    pictures=tensors["pictures"],
                    sounds=tensors["sounds"],
                    skipped=[],
                )
    found = measure_set(clips, extractors, float(spec.duration), spec.frame_rate, advance)
    if found.skipped:
        raise ValueError(f"{found.skipped[0].name}: {found.skipped[0].reason}")
    if cache is None:
        return found
    tensors = {"pictures": found.pictures, "sounds": found.sounds}
    for name, rows in found.features.items():
        tensors[f"features/{name}"] = rows.contiguous()
        tensors[f"rows/{name}"] = rows.new_tensor(found.rows_per_clip[name]).long()
    save_file(tensors, cache, about)
    return found
