"""The files of a prepared data set: what they hold and how they are read and written.

dataset.json        what was prepared, with which options; written last, so that its presence
                    means that the data set is complete
manifest.jsonl      one line a clip
shards/             tar files in WebDataset layout: KEY.json and KEY.mkv for every clip
skipped.csv         every source or piece of one that was left out, and why
journal.jsonl       what is done so far, one line a source (see `journal.py`)
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from soundreel.errors import SoundreelError
from soundreel.files import write_text
from soundreel.types import ClipSpec

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.jsonl"
SKIPPED_FILE = "skipped.csv"
CAPTIONS_FILE = "captions.csv"
SHARDS_FOLDER = "shards"


class DataError(SoundreelError):
    """A data set that cannot be made, read or continued; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRecord:
    """Where one prepared clip came from and where it lies.

    Attributes:
        key: unique name, the base name of its members in the shard.
        label: index into `DatasetInfo.classes`; -1 if it has no class.
        source: the video it was cut from, relative to the prepared folder or list; clips of the
        same
            `group` are always in the same split.
        start_s: where in the source it begins.
        num_clipped: samples that exceeded full scale in the source and were clipped.
        offset, num_bytes: position and size of KEY.mkv within the shard file.
        sha256: of those bytes.
    """

    key: str
    split: str
    label: int
    source: str
    group: str
    start_s: float
    num_frames: int
    num_samples: int
    num_clipped: int
    shard: str
    offset: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo:
    """The content of `dataset.json`.

    Attributes:
        frame_rate: as an exact fraction.
        options: how it was made (for a prepared folder: `PrepareOptions` as a dictionary).
        origin: the folder or list it was made from.
        counts: clips, sources, skipped, and seconds; clips per split under "split/NAME".
    """

    height: int
    width: int
    frame_rate: Fraction
    sample_rate: int
    num_channels: int
    classes: tuple[str, ...]
    origin: str
    options: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int | float] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def spec(self, num_frames: int) -> ClipSpec:
        """The spec of windows of `num_frames` frames of this data set."""
        return ClipSpec(
            num_frames=num_frames,
            height=self.height,
            width=self.width,
            frame_rate=self.frame_rate,
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
        )

    def save(self, root: Path) -> None:
        content = asdict(self) | {"frame_rate": str(self.frame_rate)}
        write_text(root / DATASET_FILE, json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, root: Path) -> "DatasetInfo":
        """Raises: DataError if `root` holds no complete data set of a known format."""
        path = root / DATASET_FILE
        if not path.is_file():
            raise DataError(
                f"{root} is not a prepared data set (no {DATASET_FILE}); make one with "
                f"`soundreel prepare SRC {root}`, or run it again to finish an interrupted one"
            )
        content = parse_json(path.read_bytes(), str(path))
        if content.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{path}: format version {content.get('format_version')!r}, this version of "
                f"soundreel reads {FORMAT_VERSION}; prepare the data set again"
            )
        try:
            content["frame_rate"] = Fraction(content["frame_rate"])
            content["classes"] = tuple(content["classes"])
            return cls(**content)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); prepare the data set again") from error


def save_manifest(root: Path, records: Iterable[ClipRecord]) -> None:
    """Write `manifest.jsonl`, one record a line, in the given order."""
    lines = (json.dumps(asdict(record)) + "\n" for record in records)
    write_text(root / MANIFEST_FILE, "".join(lines))


def load_manifest(root: Path, split: str = "") -> list[ClipRecord]:
    """Records of one split, or of all for the empty string, in the order of the file.

    Raises:
        DataError: if the file is absent or a line is damaged.
    """
    path = root / MANIFEST_FILE
    if not path.is_file():
        raise DataError(f"{root} holds no {MANIFEST_FILE}; it is not a complete prepared data set")
    names = {f.name for f in fields(ClipRecord)}
    records = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            content = parse_json(line, f"{path}, line {number}")
            if content.keys() != names:
                wrong = sorted(content.keys() ^ names)
                raise DataError(f"{path}, line {number}: missing or unknown fields {wrong}")
            records.append(ClipRecord(**content))
    return [record for record in records if split in ("", record.split)]


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: expected a JSON object, got {type(content).__name__}")
    return content
