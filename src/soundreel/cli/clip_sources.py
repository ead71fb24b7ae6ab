"""The clips a command is to measure: a folder of media files, a prepared data set, or a model."""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from soundreel.checkpoints.store import INDEX_FILE
from soundreel.clip import Clip
from soundreel.data.manifest import DATASET_FILE, ClipRecord, DatasetInfo, load_manifest
from soundreel.data.shards import ShardReader
from soundreel.media.probe import probe
from soundreel.metrics.weights import file_sha256

MEDIA_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".gif", ".flv", ".ts")
)


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A media file; its class is the folder it lies in, below the folder that was given."""

    name: str
    label: str
    path: Path

    @property
    def sha256(self) -> str:
        return file_sha256(self.path)

    def load(self, duration_s: float) -> Clip:
        return _load(self.path, duration_s)


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """A clip of a prepared data set."""

    name: str
    label: str
    record: ClipRecord
    reader: ShardReader

    @property
    def sha256(self) -> str:
        return self.record.sha256

    def load(self, duration_s: float) -> Clip:
        return _load(io.BytesIO(self.reader.read(self.record)), duration_s)


@dataclass(frozen=True, slots=True)
class SampledClip:
    """A clip sampled from a model when its turn comes."""

    name: str
    label: str
    sample: Callable[[], Clip]
    model_sha256: str

    @property
    def sha256(self) -> str:
        """A sample is what its model's index and its seed make it."""
        return self.model_sha256

    def load(self, duration_s: float) -> Clip:
        clip = self.sample()
        return clip.cut(0, duration_s) if clip.duration_s > duration_s else clip


Item = MediaFile | PreparedClip | SampledClip


def set_sha256(items: Sequence[Item]) -> str:
    """One hash of a set: of the names and hashes of its clips."""
    lines = "".join(f"{item.name} {item.sha256}\n" for item in items)
    return hashlib.sha256(lines.encode()).hexdigest()


def clip_items(source: Path, split: str, max_clips: int | None, seed: int) -> list[Item]:
    """The clips of a source, in the order of their names.

    Args:
        split: of a prepared data set; "" takes all.
        max_clips: draw so many of them, the same ones for the same seed; of a model: how many to
            sample. None takes all (of a model: 200).

    Raises:
        ValueError: there is no such source, or it holds no clips.
    """
    if (source / INDEX_FILE).is_file():
        return _sampled(source, max_clips or 200, seed)
    if (source / DATASET_FILE).is_file():
        items = _prepared(source, split)
    elif source.is_dir():
        items = media_files(source)
    else:
        raise ValueError(f"{source}: no folder; give a folder of clips, a data set or a model")
    if not items:
        raise ValueError(f"{source} holds no video files")
    if max_clips is not None and max_clips < len(items):
        chosen = np.random.default_rng(seed).permutation(len(items))[:max_clips]
        items = [items[k] for k in sorted(chosen.tolist())]
    return items


def media_files(folder: Path) -> list[Item]:
    """All media files below a folder; a hidden file is none."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file() and path.name[0] != "."
    )
    return [
        MediaFile(
            name=str(path.relative_to(folder)),
            label=path.parent.name if path.parent != folder else "",
            path=path,
        )
        for path in found
    ]


def _prepared(root: Path, split: str) -> list[Item]:
    classes = DatasetInfo.load(root).classes
    reader = ShardReader(root)
    return [
        PreparedClip(
            name=record.key,
            label=classes[record.label] if record.label >= 0 else "",
            record=record,
            reader=reader,
        )
        for record in load_manifest(root, split)
    ]


def _sampled(folder: Path, count: int, seed: int) -> list[Item]:
    from soundreel.pipelines.load import load  # heavy, and only needed here

    pipeline = load(folder)

    def sampler(index: int) -> Callable[[], Clip]:
        return lambda: pipeline.generate(count=1, seed=seed + index)[0]

    return [
        SampledClip(f"sample-{seed + k:06d}", "", sampler(k), file_sha256(folder / INDEX_FILE))
        for k in range(count)
    ]


def _load(source: Path | io.BytesIO, duration_s: float) -> Clip:
    """The first `duration_s` seconds, or everything of a shorter file."""
    duration = probe(source).duration
    if duration is not None and duration <= Fraction(duration_s):
        return Clip.load(source)
    return Clip.load(source, duration=duration_s)
