"""The folder that a data set is made in: held by one process, cleared, and finished."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from soundreel.data.journal import (
    JOURNAL_FILE,
    Journal,
    SourceEntry,
    save_skipped,
    save_source_captions,
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
from soundreel.data.parts import LISTING, PART
from soundreel.data.selection import CHOSEN_FILE
from soundreel.files import LOCK_FILE, locked

SPOOL_FOLDER = ".spool"


@contextmanager
def claimed(root: Path) -> Iterator[None]:
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


def clear(root: Path, overwrite: bool) -> None:
    """Remove what a killed run left in the spool, and all the rest if asked to."""
    shutil.rmtree(root / SPOOL_FOLDER, ignore_errors=True)
    if overwrite:
        names = (DATASET_FILE, MANIFEST_FILE, SKIPPED_FILE, CAPTIONS_FILE, CHOSEN_FILE)
        for name in (*names, JOURNAL_FILE):
            (root / name).unlink(missing_ok=True)
        shutil.rmtree(root / SHARDS_FOLDER, ignore_errors=True)


def is_complete(root: Path, journal: Journal) -> bool:
    """Return whether dataset.json was written after the last line of the journal."""
    is_there = (root / DATASET_FILE).exists()
    return is_there and DatasetInfo.load(root).counts["scanned"] == len(journal.entries)


def finish(
    root: Path, header: Mapping[str, Any], options: PrepareOptions, journal: Journal
) -> None:
    """Write skipped.csv, manifest.jsonl and, last, dataset.json.

    Args:
        header: that of the journal.

    Raises:
        DataError: no source is usable; of a part, none need be.
    """
    entries = [journal.entries[name] for name in sorted(journal.entries)]
    save_skipped(root, entries)
    save_source_captions(root, entries)
    if not any(entry.clips for entry in entries) and PART not in header:
        reasons = "; ".join(f"{e.source}: {s.reason}" for e in entries[:3] for s in e.skipped[:1])
        raise DataError(
            f"nothing usable in {header['origin']}: all {len(entries)} sources were left out "
            f"({reasons}{'; ...' if len(entries) > 3 else ''}); see {root / SKIPPED_FILE}"
        )
    before = DatasetInfo.load(root).classes if (root / DATASET_FILE).exists() else ()
    names = {entry.label for entry in entries if entry.clips and entry.label}
    classes = before + tuple(sorted(names - set(before)))
    records = [
        replace(record, label=classes.index(entry.label) if entry.label else -1)
        for entry in entries
        for record in entry.clips
    ]
    of_part = {name: header[name] for name in (PART, LISTING) if name in header}
    DatasetInfo(
        height=options.height,
        width=options.width,
        frame_rate=options.rate,
        sample_rate=options.sample_rate,
        num_channels=options.num_channels,
        classes=classes,
        origin=header["origin"],
        options=asdict(options) | of_part,
        counts=_counts(entries, records, options),
        manifest_checksum=save_manifest(root, records),
    ).save(root)


def _counts(
    entries: Sequence[SourceEntry], records: Sequence[ClipRecord], options: PrepareOptions
) -> dict[str, int | float]:
    counts = {
        "scanned": len(entries),
        "clips": len(records),
        "sources": sum(bool(entry.clips) for entry in entries),
        "skipped": sum(len(entry.skipped) for entry in entries),
        "seconds": float(sum(record.num_frames for record in records) / options.rate),
        "clipped_samples": sum(record.num_clipped for record in records),
    }
    for split in sorted({record.split for record in records}):
        counts[f"split/{split}"] = sum(record.split == split for record in records)
    return counts
