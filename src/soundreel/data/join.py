"""Join the parts that several machines prepared to the data set that a single run makes."""

import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from soundreel.config_io import config_from_json
from soundreel.data.destination import claimed, clear, finish, is_complete
from soundreel.data.journal import JOURNAL_FILE, Entries, Journal, SourceEntry, read_journal
from soundreel.data.manifest import DataError, DatasetInfo
from soundreel.data.options import PrepareOptions
from soundreel.data.parts import LISTING, PART, Part
from soundreel.data.selection import CHOSEN_FILE
from soundreel.data.shards import ShardReader, ShardWriter, ShardWriters, sidecar
from soundreel.files import write_text
from soundreel.protocols import Progress

_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")


@dataclass(frozen=True, slots=True)
class _MadePart:
    root: Path
    header: dict[str, Any]
    entries: Entries


def join_parts(
    parts: Sequence[Path],
    root: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DatasetInfo:
    """Copy the clips of all parts into one data set, in the order of the sources' names.

    It holds byte for byte what `prepare_dataset` makes of all sources at once. Run again, it goes
    on where it was interrupted; every clip is compared with its hash.

    Args:
        parts: folders made by `prepare_dataset` with a `part`, in any order.
        overwrite: delete a data set that is at `root` already.

    Raises:
        DataError: a part is missing, given twice, unfinished, damaged, or made from other sources
            or with other options than the first; or `root` holds something else.
    """
    made = [_load(path) for path in parts]
    header = _common_header(made)
    options = config_from_json(
        PrepareOptions, header["options"], f"{parts[0] / JOURNAL_FILE}", error=DataError
    )
    if root.resolve() in [part.root.resolve() for part in made]:
        raise DataError(f"{root} is one of the parts; choose another destination")
    with claimed(root):
        clear(root, overwrite)
        with closing(Journal(root, header)) as journal:
            if (chosen := made[0].root / CHOSEN_FILE).is_file():
                write_text(root / CHOSEN_FILE, chosen.read_text(encoding="utf-8"))
            if _copy(made, root, options, journal, progress) or not is_complete(root, journal):
                finish(root, header, options, journal)
    return DatasetInfo.load(root)


def _copy(
    made: Sequence[_MadePart],
    root: Path,
    options: PrepareOptions,
    journal: Journal,
    progress: Progress | None,
) -> int:
    """Append every source that the journal lacks, and return how many there were."""
    with ExitStack() as stack:
        origins: dict[str, tuple[Entries, ShardReader]] = {}
        for part in made:
            reader = stack.enter_context(closing(ShardReader(part.root)))
            origins |= dict.fromkeys(part.entries, (part.entries, reader))
        todo = [name for name in sorted(origins) if name not in journal.entries]
        writers = stack.enter_context(
            ShardWriters(
                root,
                {origins[name][0][name].split for name in todo},
                max_bytes=options.shard_size_mb * 2**20,
                written=journal.clips(),
            )
        )
        for number, name in enumerate(todo, 1):
            entries, reader = origins[name]
            entry = entries[name]
            journal.append(_copied(entry, reader, writers[entry.split]))
            if progress is not None:
                progress(number, len(todo))
    return len(todo)


def _copied(entry: SourceEntry, reader: ShardReader, writer: ShardWriter) -> SourceEntry:
    """Append the clips of a source, and return its entry with their new places."""
    clips = []
    for record in entry.clips:
        about = sidecar(record, entry.label)
        shard, offset, num_bytes = writer.add(record.key, about, reader.read(record))
        clips.append(replace(record, shard=shard, offset=offset, num_bytes=num_bytes))
    writer.flush()
    return replace(entry, clips=tuple(clips))


def _load(root: Path) -> _MadePart:
    """Read the journal of a finished part.

    Raises:
        DataError: it is none.
    """
    info = DatasetInfo.load(root)
    header, entries = read_journal(root)
    if not {PART, LISTING, "origin", "options"} <= header.keys():
        raise DataError(f"{root} is no part of a data set; make parts with `prepare --part`")
    part = Part.parse(str(header[PART]))
    for entry in entries.values():
        keys = [record.key for record in entry.clips]
        if not part.holds(entry.source) or not all(map(_KEY.fullmatch, keys)):
            raise DataError(f"{root}: {entry.source} cannot be in part {part}, or its keys are odd")
    if info.counts.get("scanned") != len(entries):
        raise DataError(f"{root} is unfinished; run `soundreel prepare` again to finish it")
    return _MadePart(root, header, entries)


def _common_header(made: Sequence[_MadePart]) -> dict[str, Any]:
    """Return the header of the whole.

    Raises:
        DataError: the parts do not fit together.
    """
    if not made:
        raise DataError("no parts to join; name the folders made with `prepare --part`")
    first = made[0]
    for other in made[1:]:
        for name in sorted(first.header.keys() | other.header.keys()):
            if name != PART and first.header.get(name) != other.header.get(name):
                what = "sources" if name == LISTING else name
                raise DataError(
                    f"{other.root} was made from other {what} than {first.root}; prepare one of "
                    "them again with --overwrite"
                )
    numbers = [Part.parse(str(part.header[PART])) for part in made]
    wanted = [Part(number=n + 1, count=numbers[0].count) for n in range(numbers[0].count)]
    missing = [str(part) for part in wanted if part not in numbers]
    if missing or len(numbers) != len(wanted):
        problem = f"{', '.join(missing)} missing" if missing else "one is given twice"
        raise DataError(f"the parts do not make a whole: {problem}")
    return {name: first.header[name] for name in ("origin", "options")}
