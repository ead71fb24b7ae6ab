"""List what there is to prepare: the files of a folder, or the rows of a list.

A list is a CSV file with the columns `path` (relative to the list or absolute) and, optionally,
`label`, `caption`, `start_s`, `end_s` and `source` (rows with the same source stay in the same
split). The lists of AudioSet are read too, see `audioset`.
"""

import csv
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from soundreel.data.audioset import audioset_rows, is_audioset
from soundreel.data.manifest import DataError
from soundreel.data.options import PrepareOptions
from soundreel.media.errors import printable
from soundreel.media.names import is_media_name

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Names a video, or a piece of one, to be prepared.

    Attributes:
        file: where it lies.
        name: unique and independent of where the folder lies.
        group: clips of equal group stay in the same split.
        label: name of its class; empty for none.
        caption: words that describe it; empty for none.
        start_s, end_s: the piece to use; None for the beginning or end of the file.
        problem: why it cannot be used, if that is known without opening it.
    """

    file: str  # a fourth of the memory of a Path, and there may be a million
    name: str
    group: str
    label: str = ""
    caption: str = ""
    start_s: Fraction | None = None
    end_s: Fraction | None = None
    problem: str = ""

    @property
    def path(self) -> Path:
        return Path(self.file)


def scan(origin: Path, options: PrepareOptions, exclude: Path) -> list[Source]:
    """List all sources of a folder (every file not hidden, recursively) or of a list, by name.

    Args:
        exclude: a folder to leave out (the destination, which may lie inside the origin).

    Raises:
        DataError: if the origin does not exist, is no folder or list, or holds nothing.
    """
    if origin.is_dir():
        if options.labels == "list":
            raise DataError(
                f"labels from a list need a CSV file as the source, got folder {origin}"
            )
        sources = _scan_folder(origin, options, exclude.resolve())
    elif origin.suffix.lower() == ".csv" and origin.is_file():
        try:
            sources = _scan_list(origin, options, exclude.resolve())
        except csv.Error as error:
            raise DataError(f"{origin}: cannot be read as CSV ({error})") from None
    elif origin.exists():
        raise DataError(f"{origin} is neither a folder nor a CSV list of videos")
    else:
        raise DataError(f"{origin} does not exist; give a folder of videos or a CSV list")
    if not sources:
        raise DataError(f"{origin} holds no files; give a folder of videos or a CSV list")
    return sorted(sources, key=lambda source: source.name)


def _scan_folder(origin: Path, options: PrepareOptions, exclude: Path) -> list[Source]:
    sources = []
    for path in _files(origin, exclude):
        name = printable(path.relative_to(origin).as_posix())
        label, problem = _label(name, "", options)
        if not is_media_name(path):
            problem = "is no video by its name"
        sources.append(
            Source(
                file=str(path), name=name, group=_group(name, options), label=label, problem=problem
            )
        )
    return sources


def _files(folder: Path, exclude: Path) -> Iterator[Path]:
    """Yield files that are not hidden, through links to folders too, each folder once."""
    seen = {exclude}
    for parent, folders, names in os.walk(folder, followlinks=True):
        place = Path(parent).resolve()
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _scan_list(origin: Path, options: PrepareOptions, exclude: Path) -> list[Source]:
    sources: dict[str, Source] = {}
    num_labels_unused = 0
    for number, row in _rows(origin, exclude):
        where = f"{origin}, line {number}"
        given = row["path"].strip()
        start_s, end_s = (_seconds(row.get(column), where) for column in ("start_s", "end_s"))
        piece = "" if start_s is None and end_s is None else f"@{row['start_s']}-{row['end_s']}"
        name = printable(given)
        label, problem = _label(name, _text(row, "label"), options)
        has_unused_label = row.get("label") and not row.get("caption")
        num_labels_unused += bool(has_unused_label) and options.labels == "none"
        if start_s is not None and end_s is not None and end_s <= start_s:
            problem = f"end_s {row['end_s']} is not after start_s {row['start_s']}"
        source = Source(
            file=str(origin.parent / given),
            name=name + piece,
            group=_text(row, "source") or _group(name, options),
            label=label,
            caption=_text(row, "caption"),
            start_s=start_s,
            end_s=end_s,
            problem=problem,
        )
        if source.name in sources:
            raise DataError(f"{where}: {source.name} is listed twice; remove one of the rows")
        sources[source.name] = source
    if num_labels_unused:
        log.warning(
            "%d labels of the list are not used; --labels list uses them", num_labels_unused
        )
    return list(sources.values())


def _text(row: dict[str, str], column: str) -> str:
    return printable((row.get(column) or "").strip())


def _rows(origin: Path, exclude: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line numbers and columns of a list, AudioSet's included."""
    # Names in the file system's own bytes, UTF-8 or not, are found by them.
    with origin.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = list(file)
    if is_audioset(lines):
        files = _files(origin.parent, exclude)
        media = (path for path in files if path.suffix and is_media_name(path))
        yield from audioset_rows(origin, lines, media)
        return
    reader = csv.DictReader(lines)
    known = {"path", "label", "caption", "start_s", "end_s", "source"}
    columns = set(reader.fieldnames or ())
    if "path" not in columns or not columns <= known:
        raise DataError(
            f"{origin}: the first line must name the column path and may name {sorted(known)}, "
            f"got {sorted(columns)}"
        )
    for row in reader:
        path = row["path"] or ""
        if None in row or not path.strip() or "\0" in path:
            raise DataError(
                f"{origin}, line {reader.line_num}: no path, or more columns than named"
            )
        yield reader.line_num, {"start_s": "", "end_s": ""} | row


def _seconds(text: str | None, where: str) -> Fraction | None:
    if not (text or "").strip():
        return None
    try:
        value = Fraction((text or "").strip())
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if value < 0:
        raise DataError(f"{where}: expected seconds from 0 on, got {text!r}")
    return value


def _label(name: str, listed: str, options: PrepareOptions) -> tuple[str, str]:
    """Return the class name, and what is wrong if there should be one but is none."""
    if options.labels == "folder":
        parent = Path(name).parent.name
        return parent, "" if parent else "lies in no class folder"
    if options.labels == "list":
        return listed, "" if listed else "the list gives it no label"
    if options.labels == "pattern":
        match = re.search(options.label_pattern, name)
        found = (match[1] if match and match.re.groups else "") or ""
        return found, "" if found else f"label pattern {options.label_pattern} is not in its path"
    return "", ""


def _group(name: str, options: PrepareOptions) -> str:
    match = re.search(options.group_pattern, name) if options.group_pattern else None
    return "/".join(part or "" for part in match.groups()) if match and match.groups() else name
