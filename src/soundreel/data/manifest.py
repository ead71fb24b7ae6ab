"""The files of a prepared data set: what they hold and how they are read and written.

dataset.json        what was prepared, with which options; written last, so that its presence
                    means that the data set is complete
manifest.jsonl      one line a clip
manifest.index      place, length and checksum of each line, and the frames of its clip
shards/             tar files in WebDataset layout: KEY.json and KEY.mkv for every clip
skipped.csv         every source or piece of one that was left out, and why
journal.jsonl       what is done so far, one line a source (see `journal.py`)
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any, get_type_hints

import numpy as np

from soundreel.config_io import config_from_json
from soundreel.errors import SoundreelError
from soundreel.files import checksum, file_checksum, writing_file
from soundreel.json_yaml import parse_json, read_checked_json, write_checked_json
from soundreel.types import ClipSpec

FORMAT_VERSION = 1
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.jsonl"
INDEX_FILE = "manifest.index"
SKIPPED_FILE = "skipped.csv"
CAPTIONS_FILE = "captions.csv"
SHARDS_FOLDER = "shards"
INDEX_ROW = np.dtype(
    [
        ("offset", "<u8"),
        ("num_bytes", "<u4"),
        ("checksum", "<u4"),
        ("num_frames", "<u4"),
        ("split", "<u4"),
    ]
)
"""A line of the manifest: its first byte, its length, its CRC-32, the frames of its clip, and the
`split_code` of its split."""
_PACKED_ROW = struct.Struct("<QIIII")


class DataError(SoundreelError):
    """A data set that cannot be made, read or continued; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipRecord:
    """Origin and place of one prepared clip.

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
        manifest_checksum: CRC-32 of `manifest.jsonl`; empty in data sets of older releases.
        checksums: CRC-32 of the other lists by file name; filled in by `save`.
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
    manifest_checksum: str = ""
    checksums: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def spec(self, num_frames: int) -> ClipSpec:
        """Return the spec of windows of `num_frames` frames of this data set."""
        return ClipSpec(
            num_frames=num_frames,
            height=self.height,
            width=self.width,
            frame_rate=self.frame_rate,
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
        )

    def save(self, root: Path) -> None:
        """Write `dataset.json`, with the checksums of the lists that lie there."""
        lists = [root / name for name in (INDEX_FILE, SKIPPED_FILE, CAPTIONS_FILE)]
        checksums = {path.name: file_checksum(path) for path in lists if path.is_file()}
        content = asdict(self) | {"frame_rate": str(self.frame_rate), "checksums": checksums}
        write_checked_json(root / DATASET_FILE, content)

    @classmethod
    def load(cls, root: Path) -> "DatasetInfo":
        """Read `dataset.json`.

        Raises:
            DataError: `root` holds no complete data set of a known format, or a damaged one.
        """
        path = root / DATASET_FILE
        if not path.is_file():
            raise DataError(
                f"{root} is not a prepared data set (no {DATASET_FILE}); make one with "
                f"`soundreel prepare SRC {root}`, or run it again to finish an interrupted one"
            )
        content = read_checked_json(path, DataError)
        if not isinstance(content, dict):
            raise DataError(f"{path}: expected a JSON object, got {type(content).__name__}")
        if content.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{path}: format version {content.get('format_version')!r}, this version of "
                f"soundreel reads {FORMAT_VERSION}; prepare the data set again"
            )
        return config_from_json(cls, content, str(path), error=DataError)


def check_list(root: Path, name: str) -> None:
    """Compare a list beside the manifest, such as the captions, with its checksum, if it has one.

    Raises:
        DataError: it is missing, or has changed since it was written.
    """
    expected = DatasetInfo.load(root).checksums.get(name, "")
    found = file_checksum(root / name) if (root / name).is_file() else "missing"
    if expected not in ("", found):
        raise DataError(
            f"{root / name}: damaged since it was written (its checksum is {found}, not "
            f"{expected}); copy it again or, if you changed it yourself, give it under another name"
        )


def save_manifest(root: Path, records: Iterable[ClipRecord]) -> str:
    """Write `manifest.jsonl`, one record a line, in the given order, and its index.

    Returns:
        The manifest's checksum.
    """
    found = offset = 0
    with (
        writing_file(root / MANIFEST_FILE) as manifest,
        writing_file(root / INDEX_FILE) as index,
        manifest.open("wb") as lines,
        index.open("wb") as rows,
    ):
        for record in records:
            line = (json.dumps({name: getattr(record, name) for name in _TYPES}) + "\n").encode()
            lines.write(line)
            rows.write(_PACKED_ROW.pack(*index_row(line, offset, record)))
            found = checksum(line, start=found)
            offset += len(line)
    return f"{found:08x}"


def index_row(line: bytes, offset: int, record: ClipRecord) -> tuple[int, ...]:
    """Return the row of the index of a line of the manifest."""
    most = 2**32 - 1
    frames = min(record.num_frames, most)
    return offset, len(line), checksum(line), frames, split_code(record.split)


def split_code(split: str) -> int:
    """Return the number by which the index knows a split."""
    return zlib.crc32(split.encode())


def load_manifest(root: Path, split: str = "") -> list[ClipRecord]:
    """Return the records of one split, or of all for the empty string, in the order of the file.

    Raises:
        DataError: the file is absent, or a line is damaged.
    """
    return list(iter_manifest(root, split))


def iter_manifest(root: Path, split: str = "") -> Iterator[ClipRecord]:
    """Yield the records one by one; see `load_manifest`."""
    return (record for _, _, record in manifest_lines(root) if split in ("", record.split))


def manifest_lines(root: Path) -> Iterator[tuple[bytes, int, ClipRecord]]:
    """Yield the lines of the manifest, each with its first byte and its record.

    Raises:
        DataError: the file is absent, or a line is damaged; in the end, that the whole is.
    """
    path = root / MANIFEST_FILE
    if not path.is_file():
        raise DataError(f"{root} holds no {MANIFEST_FILE}; it is not a complete prepared data set")
    has_info = (root / DATASET_FILE).is_file()
    expected = DatasetInfo.load(root).manifest_checksum if has_info else ""
    found = offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            found = checksum(line, start=found)
            where = f"{path}, line {number}"
            yield line, offset, parse_record(parse_json(line, str(path), DataError), where)
            offset += len(line)
    if expected not in ("", f"{found:08x}"):
        raise DataError(
            f"{path}: damaged since it was written (its checksum is {found:08x}, not {expected}); "
            "copy the data set again, or run `soundreel prepare` again to finish or mend it"
        )


def parse_record(content: Any, where: str) -> ClipRecord:
    """Return the record of a clip from its JSON value.

    Raises:
        DataError: a field is missing, unknown or of another type, or leads out of the data set.
    """
    is_plain = isinstance(content, dict) and content.keys() == _TYPES.keys()
    if is_plain and all(type(value) is _TYPES[name] for name, value in content.items()):
        record = ClipRecord(**content)  # the rule, ten times as fast
    else:
        record = config_from_json(ClipRecord, content, where, error=DataError)
    shard = PurePosixPath(record.shard)
    if shard.is_absolute() or ".." in shard.parts or "\0" in record.shard:
        raise DataError(f"{where}: the shard {record.shard!r} is not within the data set")
    counts = (record.num_frames, record.num_samples, record.offset, record.num_bytes)
    if min(counts) < 0 or record.label < -1 or not isfinite(record.start_s):
        raise DataError(f"{where}: clip {record.key} has a negative count, or no start")
    return record


_TYPES = get_type_hints(ClipRecord)
