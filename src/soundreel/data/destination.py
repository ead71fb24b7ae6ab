"""The folder that a data set is made in: held by one process, cleared, and finished."""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from soundreel.data.journal import JOURNAL_FILE, Journal, SourceEntry, save_lists
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
    names = sorted(journal.entries)

    def entries() -> Iterator[SourceEntry]:  # from disk each time: any number takes little memory
        return (journal.entries[name] for name in names)

    save_lists(root, entries())
    labels = {entry.label for entry in entries() if entry.clips}
    if not labels and PART not in header:
        some = list(islice(entries(), 3))
        reasons = "; ".join(f"{e.source}: {s.reason}" for e in some for s in e.skipped[:1])
        raise DataError(
            f"nothing usable in {header['origin']}: all {len(names)} sources were left out "
            f"({reasons}{'; ...' if len(names) > 3 else ''}); see {root / SKIPPED_FILE}"
        )
    before = DatasetInfo.load(root).classes if (root / DATASET_FILE).exists() else ()
    classes = before + tuple(sorted(labels - {"", *before}))
    counts = Counter(scanned=0, clips=0, sources=0, skipped=0, frames=0, clipped_samples=0)
    manifest_checksum = save_manifest(root, _records(entries(), classes, counts))
    seconds = float(counts.pop("frames") / options.rate)
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
        counts=dict(sorted(counts.items())) | {"seconds": seconds},
        manifest_checksum=manifest_checksum,
    ).save(root)


def _records(
    entries: Iterable[SourceEntry], classes: Sequence[str], counts: Counter[str]
) -> Iterator[ClipRecord]:
    """Yield the clips of all entries with the numbers of their classes, and count both."""
    for entry in entries:
        counts.update(scanned=1, sources=bool(entry.clips), skipped=len(entry.skipped))
        for record in entry.clips:
            counts.update(
                {
                    "clips": 1,
                    "frames": record.num_frames,
                    "clipped_samples": record.num_clipped,
                    f"split/{record.split}": 1,
                }
            )
            yield replace(record, label=classes.index(entry.label) if entry.label else -1)
