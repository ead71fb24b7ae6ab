"""Folder or list of videos in, checked data set out.

Sources are converted by worker processes, one video each at a time, clip by clip into a spool
folder; this process alone writes the shards, the journal and, at the end, the manifest. Results are
taken in the order of the sources' names, so the data set does not depend on the number of workers.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from soundreel.data.convert import Conversion, ConvertedClip
from soundreel.data.copies import group_copies
from soundreel.data.cuts import require_scene_detection
from soundreel.data.journal import (
    JOURNAL_FILE,
    Journal,
    SourceEntry,
    save_skipped,
    save_source_captions,
    size_of,
)
from soundreel.data.manifest import (
    CAPTIONS_FILE,
    DATASET_FILE,
    MANIFEST_FILE,
    SHARDS_FOLDER,
    SKIPPED_FILE,
    ClipRecord,
    DataError,
    DatasetInfo,
    save_manifest,
)
from soundreel.data.options import PrepareOptions
from soundreel.data.scan import Source, scan
from soundreel.data.selection import CHOSEN_FILE, select
from soundreel.data.shards import ShardReader, ShardWriter, sidecar
from soundreel.data.split import TRAIN, assign_splits
from soundreel.data.workers import UNFORESEEN, convert_all
from soundreel.files import LOCK_FILE, locked
from soundreel.protocols import Progress

SPOOL_FOLDER = ".spool"


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
        num_workers: processes that decode; 0 decodes in this one.
        overwrite: delete a data set that is at `root` already.

    Raises:
        DataError: if there is nothing to prepare, nothing usable, or `root` holds something else.
    """
    if options.scene_cuts == "split":
        require_scene_detection()
    sources = scan(origin, options, exclude=root)
    with _claimed(root):
        _clear(root, overwrite)
        sources = select(sources, options, root)
        journal = Journal(root, {"origin": str(origin.resolve()), "options": asdict(options)})
        try:
            _check_unchanged(sources, journal)
            todo = [source for source in sources if source.name not in journal.entries]
            if todo:
                known = {entry.source: entry.group for entry in journal.entries.values()}
                sources = group_copies(sources, known, options.near_copies, num_workers)
                todo = [source for source in sources if source.name not in journal.entries]
            if todo or not _is_complete(root, journal):
                _verify(root, journal)
                _convert(todo, root, options, journal, num_workers, progress)
                _finish(root, origin, options, journal)
        finally:
            journal.close()
            shutil.rmtree(root / SPOOL_FOLDER, ignore_errors=True)
    defects = sum(
        any(skip.reason.startswith(UNFORESEEN) for skip in journal.entries[source.name].skipped)
        for source in todo
    )
    return PrepareReport(info=DatasetInfo.load(root), num_converted=len(todo), num_defects=defects)


@contextmanager
def _claimed(root: Path) -> Iterator[None]:
    """Hold the destination, made if absent, for this process alone; a kill gives it free.

    Raises:
        DataError: it is a file, or holds other files.
        FolderInUseError: another process is preparing it.
    """
    if root.exists() and not root.is_dir():
        raise DataError(f"{root} is a file; the destination must be a folder")
    is_new = not root.exists() or not any(root.iterdir())
    if not (is_new or (root / JOURNAL_FILE).exists() or (root / LOCK_FILE).exists()):
        raise DataError(f"{root} holds other files; choose an empty or new folder")
    with locked(root):
        yield


def _clear(root: Path, overwrite: bool) -> None:
    """Remove what a killed run left in the spool, and all the rest if asked to."""
    shutil.rmtree(root / SPOOL_FOLDER, ignore_errors=True)
    if overwrite:
        names = (DATASET_FILE, MANIFEST_FILE, SKIPPED_FILE, CAPTIONS_FILE, CHOSEN_FILE)
        for name in (*names, JOURNAL_FILE):
            (root / name).unlink(missing_ok=True)
        shutil.rmtree(root / SHARDS_FOLDER, ignore_errors=True)


def _is_complete(root: Path, journal: Journal) -> bool:
    """Return whether dataset.json was written after the last line of the journal."""
    is_there = (root / DATASET_FILE).exists()
    return is_there and DatasetInfo.load(root).counts["scanned"] == len(journal.entries)


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
    root: Path,
    options: PrepareOptions,
    journal: Journal,
    num_workers: int,
    progress: Progress | None,
) -> None:
    """Convert the sources and append them to shards and journal, in their order."""
    entries = journal.entries.values()
    # What is known to be unusable must not take the place of a clip to hold out.
    splits = dict.fromkeys((source.group for source in todo), TRAIN) | assign_splits(
        [source.group for source in todo if not source.problem],
        test=options.test,
        valid=options.valid,
        seed=options.seed,
        known={entry.group: entry.split for entry in entries},
    )
    last = {record.split: record for entry in entries for record in entry.clips}
    max_bytes = options.shard_size_mb * 2**20
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                closing(ShardWriter(root, split, max_bytes=max_bytes, last=last.get(split)))
            )
            for split in sorted({splits[source.group] for source in todo} | last.keys())
        }
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


def _finish(root: Path, origin: Path, options: PrepareOptions, journal: Journal) -> None:
    """Write skipped.csv, manifest.jsonl and, last, dataset.json."""
    entries = [journal.entries[name] for name in sorted(journal.entries)]
    save_skipped(root, entries)
    save_source_captions(root, entries)
    if not any(entry.clips for entry in entries):
        reasons = "; ".join(f"{e.source}: {s.reason}" for e in entries[:3] for s in e.skipped[:1])
        raise DataError(
            f"nothing usable in {origin}: all {len(entries)} sources were left out ({reasons}"
            f"{'; ...' if len(entries) > 3 else ''}); see {root / SKIPPED_FILE}"
        )
    before = DatasetInfo.load(root).classes if (root / DATASET_FILE).exists() else ()
    names = {entry.label for entry in entries if entry.clips and entry.label}
    classes = before + tuple(sorted(names - set(before)))
    records = [
        replace(record, label=classes.index(entry.label) if entry.label else -1)
        for entry in entries
        for record in entry.clips
    ]
    counts = {
        "scanned": len(entries),
        "clips": len(records),
        "sources": sum(bool(entry.clips) for entry in entries),
        "skipped": sum(len(entry.skipped) for entry in entries),
        "seconds": float(sum(record.num_frames for record in records) / options.rate),
    }
    counts["clipped_samples"] = sum(record.num_clipped for record in records)
    for split in sorted({record.split for record in records}):
        counts[f"split/{split}"] = sum(record.split == split for record in records)
    DatasetInfo(
        height=options.height,
        width=options.width,
        frame_rate=options.rate,
        sample_rate=options.sample_rate,
        num_channels=options.num_channels,
        classes=classes,
        origin=str(origin.resolve()),
        options=asdict(options),
        counts=counts,
        manifest_checksum=save_manifest(root, records),
    ).save(root)
