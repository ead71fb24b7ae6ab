"""The clips a command is to measure: a folder of media files, a prepared data set, or a model."""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundreel.checkpoints.store import INDEX_FILE
from soundreel.clip import Clip
from soundreel.data.manifest import DATASET_FILE, ClipRecord, DatasetInfo, load_manifest
from soundreel.data.shards import ShardReader
from soundreel.errors import SoundreelError
from soundreel.media.errors import printable
from soundreel.media.names import is_media_name
from soundreel.metrics.streams import ClipStream, load_to_show, open_stream, stream_of
from soundreel.metrics.weights import file_sha256
from soundreel.protocols import Pipeline, with_options

RUN_MODEL = "model"  # the folder in which a training run leaves its model
DEFAULT_SAMPLES = 200


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A media file; its class is the folder it lies in, below the folder that was given."""

    name: str
    label: str
    path: Path

    @property
    def sha256(self) -> str:
        return file_sha256(self.path)

    def open(self, duration_s: float) -> ClipStream:
        return open_stream(self.path, duration_s)

    def load(self, duration_s: float, start_s: float = 0.0) -> Clip:
        return load_to_show(self.path, duration_s, start_s)


class _NamedBytes(io.BytesIO):
    """A file in memory that warnings and errors can name."""

    def __init__(self, name: str, content: bytes) -> None:
        super().__init__(content)
        self.name = name


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

    def open(self, duration_s: float) -> ClipStream:
        return open_stream(_NamedBytes(self.name, self.reader.read(self.record)), duration_s)

    def load(self, duration_s: float, start_s: float = 0.0) -> Clip:
        return load_to_show(
            _NamedBytes(self.name, self.reader.read(self.record)), duration_s, start_s
        )


@dataclass(frozen=True, slots=True)
class SampledClip:
    """A clip sampled from a model when its turn comes."""

    name: str
    label: str
    sample: Callable[[], Clip]
    model_sha256: str

    @property
    def sha256(self) -> str:
        """Return the hash of its model; the seed, which makes the rest, is in its name."""
        return self.model_sha256

    def open(self, duration_s: float) -> ClipStream:
        return stream_of(self.load(duration_s))

    def load(self, duration_s: float, start_s: float = 0.0) -> Clip:
        clip = self.sample()
        return clip.cut(start_s, min(duration_s, clip.duration_s - start_s))


Item = MediaFile | PreparedClip | SampledClip


def set_sha256(items: Sequence[Item]) -> str:
    """Return one hash of a set: of the names and hashes of its clips."""
    lines = "".join(f"{item.name} {item.sha256}\n" for item in items)
    return hashlib.sha256(lines.encode()).hexdigest()


def clip_items(
    source: Path,
    split: str,
    max_clips: int | None,
    seed: int,
    duration_s: float = 0.0,
    *,
    device: str | None = None,
    precision: str | None = None,
    prompts: Sequence[str] = (),
    needs_prompts: bool = False,
) -> list[Item]:
    """Find the clips of a source, in the order of their names.

    Args:
        split: of a prepared data set; "" takes all.
        max_clips: draw so many of them, the same ones for the same seed; of a model: how many to
            sample. None takes all (of a model: 200).
        duration_s: a model whose clips are shorter is refused before it is sampled.
        device, precision: of a model; None is CUDA where there is one, and the model's own.
        prompts: captions that a model which reads some is asked for in turn.
        needs_prompts: refuse a model that reads none.

    Raises:
        SoundreelError: there is no such source, it holds no clips, or it is a model that generates
            nothing or too short clips.
    """
    if (source / INDEX_FILE).is_file():
        model = _open_model(source, duration_s, device)
        if needs_prompts and "text" not in model.conditions:
            raise SoundreelError(f"{source}: was trained without captions; leave --prompts out")
        told = prompts if "text" in model.conditions else ()
        fixed = {} if precision is None else {"precision": precision}
        with_options(model.options, fixed)  # refuses before anything is sampled
        asked = _requests(model.class_names, told, fixed)
        return _sampled(model, source, max_clips or DEFAULT_SAMPLES, seed, asked)
    if (source / DATASET_FILE).is_file():
        items = _prepared(source, split)
    elif (source / RUN_MODEL / INDEX_FILE).is_file():
        raise SoundreelError(f"{source} is a training run; its model is {source / RUN_MODEL}")
    elif source.is_dir():
        items = media_files(source)
    else:
        raise SoundreelError(f"{source}: no folder; give a folder of clips, a data set or a model")
    if not items:
        raise SoundreelError(f"{source} holds no video files")
    if max_clips is not None and max_clips < len(items):
        chosen = np.random.default_rng(seed).permutation(len(items))[:max_clips]
        items = [items[k] for k in sorted(chosen.tolist())]
    return items


def media_files(folder: Path) -> list[Item]:
    """Find all media files below a folder; a hidden file is none."""
    found = sorted(path for path in folder.rglob("*") if is_media_name(path) and path.is_file())
    return [
        MediaFile(
            name=printable(str(path.relative_to(folder))),
            label=printable(path.parent.name) if path.parent != folder else "",
            path=path,
        )
        for path in found
    ]


def _prepared(root: Path, split: str) -> list[Item]:
    classes = DatasetInfo.load(root).classes
    reader = ShardReader(root)
    records = load_manifest(root, split)
    if not records:
        splits = sorted({record.split for record in load_manifest(root)})
        raise SoundreelError(
            f"{root} has no clips"
            + (f" in split {split!r}; its splits: {', '.join(splits)}" if splits else "")
        )
    return [
        PreparedClip(
            name=record.key,
            label=classes[record.label] if record.label >= 0 else "",
            record=record,
            reader=reader,
        )
        for record in records
    ]


def _open_model(folder: Path, duration_s: float, device: str | None) -> Pipeline:
    """Return a model whose clips are long enough."""
    from soundreel.systems import load  # heavy, and only needed here

    pipeline = load(folder, device=device)
    own_s = float(pipeline.clip.duration)
    if own_s < duration_s:
        raise SoundreelError(
            f"{folder} makes clips of {own_s:g} s, and --duration-s is {duration_s:g}; compare "
            "shorter clips"
        )
    return pipeline


def _requests(
    classes: Sequence[str], prompts: Sequence[str], fixed: Mapping[str, Any]
) -> Callable[[int], dict[str, Any]]:
    """Return what sample 0, 1, ... is asked for: each class, and each caption, in turn."""

    def request(index: int) -> dict[str, Any]:
        asked: dict[str, Any] = dict(fixed)
        if classes:
            asked["label"] = index % len(classes)
        if prompts:
            asked["text"] = prompts[index % len(prompts)]
        return asked

    return request


def _sampled(
    pipeline: Pipeline,
    folder: Path,
    count: int,
    seed: int,
    request: Callable[[int], dict[str, Any]],
) -> list[Item]:
    """Return samples of `seed`, `seed + 1`, ...; their captions are part of their names."""
    classes = pipeline.class_names
    digest = model_sha256(folder)

    def item(index: int) -> SampledClip:
        asked = request(index)
        caption = f", {printable(asked['text'])}" if "text" in asked else ""
        return SampledClip(
            name=f"sample-{seed + index:06d}{caption}",
            label=classes[asked["label"]] if "label" in asked else "",
            sample=lambda: pipeline.generate(count=1, seed=seed + index, **asked)[0],
            model_sha256=digest,
        )

    return [item(index) for index in range(count)]


def model_sha256(folder: Path) -> str:
    """Return one hash of a model folder: of the names and contents of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    lines = "".join(
        f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n" for path in files
    )
    return hashlib.sha256(lines.encode()).hexdigest()
