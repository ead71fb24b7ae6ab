"""Journal of a preparation: a header and then one line a source, flushed to disk.

A source's clips are in their shard, and on disk, before its line is written. So after a kill at any
moment the journal names exactly the clips that are complete; whatever lies behind them in a shard
is cut off and made again.
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from soundreel.config_io import config_from_json
from soundreel.data.manifest import (
    CAPTIONS_FILE,
    FORMAT_VERSION,
    SKIPPED_FILE,
    ClipRecord,
    DataError,
    parse_record,
)
from soundreel.data.options import PrepareOptions
from soundreel.files import checksum, writing_errors, writing_file
from soundreel.json_yaml import parse_json

JOURNAL_FILE = "journal.jsonl"
CHECKSUM = "checksum"
"""Checksum of each line: the CRC-32 of its JSON text without this key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skip:
    """A source, or the piece of one from `start_s` on, that was left out."""

    reason: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceEntry:
    """Outcome of one source. `file_bytes` tells whether the file has changed since."""

    source: str
    group: str
    split: str
    label: str
    file_bytes: int
    clips: tuple[ClipRecord, ...] = ()
    skipped: tuple[Skip, ...] = ()
    caption: str = ""


class Entries(Mapping[str, SourceEntry]):
    """Outcomes by source, read from a journal as they are asked for: memory holds their places.

    They come in the order in which they were written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, int] = {}

    def place(self, source: str, start: int) -> None:
        """Note that the line of a source begins at a byte."""
        self._places[source] = start

    def __getitem__(self, source: str) -> SourceEntry:
        start = self._places[source]
        with self._path.open("rb") as file:
            file.seek(start)
            line = file.readline()
        where = f"{self._path}, byte {start}"
        return _entry(_parsed(line, where), where)

    def __contains__(self, source: object) -> bool:
        return source in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Journal:
    """Opens the journal of a destination, or begins it.

    Args:
        header: what must be equal to continue (origin and options).

    Raises:
        DataError: the destination was prepared from something else or with other options, or the
            journal is damaged.
    """

    def __init__(self, root: Path, header: Mapping[str, Any]) -> None:
        self._path = root / JOURNAL_FILE
        self.entries = Entries(self._path)
        header = {"format_version": FORMAT_VERSION, **json.loads(json.dumps(header))}
        begun = self._load(header)
        self._file = self._path.open("ab" if begun else "wb")
        if not begun:
            self._write(header)

    def _load(self, header: dict[str, Any]) -> bool:
        """Read what is done; return False if there is nothing worth keeping."""
        if not self._path.exists():
            return False
        found, entries, end = _read(self._path)
        differences = _differences(found, header) if found is not None else []
        if differences and any(entry.clips for entry in entries.values()):
            raise DataError(
                f"{self._path.parent} was prepared otherwise: {'; '.join(differences)}; choose "
                "another destination, the same options, or --overwrite to begin again"
            )
        if found is None or differences:
            return False
        if self._path.stat().st_size > end:
            os.truncate(self._path, end)
        self.entries = entries
        return True

    def clips(self) -> Iterator[ClipRecord]:
        """Yield the records of all clips, in the order in which they were written."""
        return (record for entry in self.entries.values() for record in entry.clips)

    def append(self, entry: SourceEntry) -> None:
        """Record a source whose clips are on disk."""
        start = self._file.tell()
        self._write(asdict(entry))
        self.entries.place(entry.source, start)

    def _write(self, content: Mapping[str, Any]) -> None:
        whole = {**content, CHECKSUM: _checksum(content)}
        with writing_errors(self._path):
            self._file.write(json.dumps(whole).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_journal(root: Path) -> tuple[dict[str, Any], Entries]:
    """Return the header of a destination's journal, and what became of each source.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = root / JOURNAL_FILE
    if not path.is_file():
        raise DataError(f"{root} holds no {JOURNAL_FILE}; copy it with the data set")
    header, entries, _ = _read(path)
    if header is None:
        raise DataError(f"{path} is empty; prepare again with --overwrite")
    return header, entries


def _read(path: Path) -> tuple[dict[str, Any] | None, Entries, int]:
    """Return header and entries of the lines that were written whole, and where these end."""
    header, entries, end = None, Entries(path), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            where = f"{path}, line {number}"
            content = _parsed(line, where)
            if header is None:
                header = content
            else:
                entries.place(_entry(content, where).source, end)
            end += len(line)
    return header, entries, end


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{checksum(json.dumps(content).encode()):08x}"


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    """Return a line without its checksum, which older releases did not write.

    Raises:
        DataError: it is damaged.
    """
    content = parse_json(line, where, DataError)
    if not isinstance(content, dict) or content.pop(CHECKSUM, "") not in ("", _checksum(content)):
        raise DataError(f"{where}: damaged since it was written; prepare again with --overwrite")
    return content


def _entry(content: dict[str, Any], where: str) -> SourceEntry:
    """Return what became of a source.

    Raises:
        DataError: a field is missing, unknown or of another type.
    """
    entry = config_from_json(SourceEntry, content, where, error=DataError)
    for record in content["clips"]:
        parse_record(record, where)
    return entry


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return what two headers differ in, option by option."""
    defaults = json.loads(json.dumps(asdict(PrepareOptions())))  # of options younger than a journal
    flat = [{**defaults, **header, **_options(header)} for header in (found, wanted)]
    return [
        f"{name} was {flat[0].get(name)!r}, is now {flat[1].get(name)!r}"
        for name in sorted(flat[0].keys() | flat[1].keys())
        if name != "options" and flat[0].get(name) != flat[1].get(name)
    ]


def _options(header: dict[str, Any]) -> dict[str, Any]:
    options = header.get("options", {})
    return options if isinstance(options, dict) else {}


def save_lists(root: Path, entries: Iterable[SourceEntry]) -> None:
    """Write what was left out and why, and the captions of sources that gave clips, if any has."""
    with ExitStack() as stack:
        skipped = stack.enter_context(
            _table(root / SKIPPED_FILE, "path", "start_s", "end_s", "reason")
        )
        captions = None
        for entry in entries:
            for skip in entry.skipped:
                times = ["" if value is None else value for value in (skip.start_s, skip.end_s)]
                skipped.writerow([entry.source, *times, skip.reason])
            if entry.clips and entry.caption:
                captions = captions or stack.enter_context(
                    _table(root / CAPTIONS_FILE, "source", "caption")
                )
                captions.writerow([entry.source, entry.caption])


@contextmanager
def _table(path: Path, *columns: str) -> Iterator[Any]:
    """Yield the writer of a new table; it takes its name when the block ends well."""
    with (
        writing_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer


def size_of(path: Path) -> int:
    """Return the bytes of a file; -1 where it cannot be read."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
