"""Folder or list of videos in, checked data set out.

Sources are converted by worker processes, one video each at a time, clip by clip into a spool
folder; this process alone writes the shards, the journal and, at the end, the manifest. Results are
taken in the order of the sources' names, so the data set does not depend on the number of workers.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from soundreel.data.convert import Conversion, ConvertedClip
from soundreel.data.copies import group_copies
from soundreel.data.cuts import require_scene_detection
from soundreel.data.destination import SPOOL_FOLDER, claimed, clear, finish, is_complete
from soundreel.data.journal import Journal, SourceEntry, size_of
from soundreel.data.manifest import ClipRecord, DataError, DatasetInfo
from soundreel.data.options import PrepareOptions
from soundreel.data.parts import Part
from soundreel.data.scan import Source, scan
from soundreel.data.selection import select
from soundreel.data.shards import ShardReader, ShardWriter, ShardWriters, sidecar
from soundreel.data.split import splits_of
from soundreel.data.workers import UNFORESEEN, convert_all
from soundreel.protocols import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareReport:
    """The finished data set and what this run did.

    Attributes:
        num_converted, num_defects: sources read, and those left out by a defect of this package.
    """

    info: DatasetInfo
    num_converted: int
    num_defects: int


def prepare_dataset(
    origin: Path,
    root: Path,
    options: PrepareOptions,
    *,
    part: Part | None = None,
    num_workers: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PrepareReport:
    """Prepare every source of `origin` that `root` does not hold yet.

    Run again, it does nothing if nothing was added, continues if it was interrupted, and converts
    only what is new if files were added.

    Args:
        origin: folder of videos or CSV list.
        root: destination; made if absent.
        part: the share of the sources to prepare; the others are listed only, so that the splits
            are those of all.
        num_workers: processes that decode; 0 decodes in this one.
        overwrite: delete a data set that is at `root` already.

    Raises:
        DataError: if there is nothing to prepare, nothing usable, or `root` holds something else.
    """
    if options.scene_cuts == "split":
        require_scene_detection()
    sources = scan(origin, options, exclude=root)
    with claimed(root):
        clear(root, overwrite)
        sources = select(sources, options, root)
        try:
            return _prepare(origin, sources, root, options, part, num_workers, progress)
        finally:
            shutil.rmtree(root / SPOOL_FOLDER, ignore_errors=True)


def _prepare(
    origin: Path,
    sources: list[Source],
    root: Path,
    options: PrepareOptions,
    part: Part | None,
    num_workers: int,
    progress: Progress | None,
) -> PrepareReport:
    """Convert those of the sources that the journal lacks."""
    header = {"origin": str(origin.resolve()), "options": asdict(options)}
    splits: Mapping[str, str] = {}
    if part is not None:
        sources, splits = _grouped(sources, options, {}, num_workers)
        header |= part.about(sources, splits)
        sources = [source for source in sources if part.holds(source.name)]
    with closing(Journal(root, header)) as journal:
        _check_unchanged(sources, journal)
        todo = [source for source in sources if source.name not in journal.entries]
        if todo and part is None:
            sources, splits = _grouped(sources, options, journal.entries, num_workers)
            todo = [source for source in sources if source.name not in journal.entries]
        if todo or not is_complete(root, journal):
            _verify(root, journal)
            _convert(todo, splits, root, options, journal, num_workers, progress)
            finish(root, header, options, journal)
    defects = sum(
        any(skip.reason.startswith(UNFORESEEN) for skip in journal.entries[source.name].skipped)
        for source in todo
    )
    return PrepareReport(info=DatasetInfo.load(root), num_converted=len(todo), num_defects=defects)


def _grouped(
    sources: list[Source],
    options: PrepareOptions,
    entries: Mapping[str, SourceEntry],
    num_workers: int,
) -> tuple[list[Source], dict[str, str]]:
    """Return the sources with copies in one group, and the split of each group.

    Args:
        entries: what was prepared before, which keeps its groups and splits.
    """
    known = [(entry.source, entry.group, entry.split) for entry in entries.values()]
    groups = {source: group for source, group, _ in known}
    sources = group_copies(sources, groups, options.near_copies, num_workers)
    fresh = [source for source in sources if source.name not in entries]
    return sources, splits_of(fresh, options, {group: split for _, group, split in known})


def _verify(root: Path, journal: Journal) -> None:
    """Read what earlier calls wrote before it is declared complete together with what is new.

    Raises:
        DataError: a clip is damaged.
    """
    with closing(ShardReader(root)) as reader:
        for entry in journal.entries.values():
            for record in entry.clips:
                reader.verify(record, entry.label)


def _check_unchanged(sources: list[Source], journal: Journal) -> None:
    changed = [
        source.name
        for source in sources
        if source.name in journal.entries
        and journal.entries[source.name].file_bytes != size_of(source.path)
    ]
    if changed:
        raise DataError(
            f"{len(changed)} sources changed since they were prepared (first: {changed[0]}); "
            "prepare again with --overwrite"
        )


def _convert(
    todo: list[Source],
    splits: Mapping[str, str],
    root: Path,
    options: PrepareOptions,
    journal: Journal,
    num_workers: int,
    progress: Progress | None,
) -> None:
    """Convert the sources and append them to shards and journal, in their order."""
    with ExitStack() as stack:
        writers = stack.enter_context(
            ShardWriters(
                root,
                {splits[source.group] for source in todo},
                max_bytes=options.shard_size_mb * 2**20,
                written=journal.clips(),
            )
        )
        results = stack.enter_context(
            closing(convert_all(todo, options, root / SPOOL_FOLDER, num_workers))
        )
        for num_done, (source, result) in enumerate(zip(todo, results, strict=True), 1):
            split = splits[source.group]
            clips = _store(source, split, result, writers[split])
            journal.append(
                SourceEntry(
                    source=source.name,
                    group=source.group,
                    split=split,
                    label=source.label,
                    caption=source.caption,
                    file_bytes=size_of(source.path),
                    clips=clips,
                    skipped=result.skipped,
                )
            )
            if progress is not None:
                progress(num_done, len(todo))


def _store(
    source: Source, split: str, result: Conversion, writer: ShardWriter
) -> tuple[ClipRecord, ...]:
    """Move converted clips from the spool into a shard."""
    records = []
    for number, clip in enumerate(result.clips):
        content = clip.path.read_bytes()
        record = _record(source, split, number, clip, content)
        about = sidecar(record, source.label)
        shard, offset, num_bytes = writer.add(record.key, about, content)
        records.append(replace(record, shard=shard, offset=offset, num_bytes=num_bytes))
        clip.path.unlink()
    writer.flush()
    return tuple(records)


def _record(
    source: Source, split: str, number: int, clip: ConvertedClip, content: bytes
) -> ClipRecord:
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(source.name).stem)[:60]
    digest = hashlib.sha256(source.name.encode()).hexdigest()[:8]
    return ClipRecord(
        key=f"{stem}-{digest}-{number:04d}",
        split=split,
        label=-1,
        source=source.name,
        group=source.group,
        start_s=clip.start_s,
        num_frames=clip.num_frames,
        num_samples=clip.num_samples,
        num_clipped=clip.num_clipped,
        shard="",
        offset=0,
        num_bytes=0,
        sha256=hashlib.sha256(content).hexdigest(),
    )
