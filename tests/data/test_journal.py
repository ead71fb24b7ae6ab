"""The journal of a preparation: entries come from disk, memory does not grow with clips."""

import gc
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from soundreel.data import destination, journal
from soundreel.data.destination import finish
from soundreel.data.journal import Journal, Skip, SourceEntry, read_journal
from soundreel.data.manifest import ClipRecord, DatasetInfo, load_manifest, save_manifest
from soundreel.data.options import PrepareOptions

HEADER = {"origin": "videos", "options": {}}


def _record(source: str, number: int) -> ClipRecord:
    return ClipRecord(
        key=f"{source}-{number:04d}",
        split="train",
        label=-1,
        source=source,
        group=source,
        start_s=float(number),
        num_frames=10,
        num_samples=16_000,
        num_clipped=1,
        shard="shards/train-000000.tar",
        offset=512 * number,
        num_bytes=500,
        sha256="0" * 64,
    )


def _entry(number: int, num_clips: int) -> SourceEntry:
    name = f"{number:05d}"
    return SourceEntry(
        source=name,
        group=name,
        split="train",
        label="even" if number % 2 == 0 else "odd",
        file_bytes=number,
        clips=tuple(_record(name, k) for k in range(num_clips)),
        skipped=(Skip(reason="is too short"),),
        caption=f"words of {name}",
    )


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(journal.os, "fsync", lambda _: None)


def test_entries_come_back_as_they_were_given_in_this_run_and_the_next(tmp_path):
    given = [_entry(number, number % 3) for number in (2, 0, 1)]
    with closing(Journal(tmp_path, HEADER)) as first:
        for entry in given:
            first.append(entry)
        assert list(first.entries.values()) == given
    with closing(Journal(tmp_path, HEADER)) as again:
        assert list(again.entries.values()) == given
        again.append(_entry(3, 1))
        assert again.entries["00003"] == _entry(3, 1)
    assert list(read_journal(tmp_path)[1].values()) == [*given, _entry(3, 1)]


def _num_records() -> int:
    return sum(type(thing) is ClipRecord for thing in gc.get_objects())


def test_memory_holds_the_clips_of_one_source_at_a_time(tmp_path, monkeypatch):
    found = []

    def watched(root: Path, records: Iterable[ClipRecord]) -> str:
        def passing() -> Iterator[ClipRecord]:
            for number, record in enumerate(records):
                if number % 150 == 50:
                    found.append(_num_records())
                yield record

        return save_manifest(root, passing())

    monkeypatch.setattr(destination, "save_manifest", watched)
    with closing(Journal(tmp_path, HEADER)) as written:
        for number in range(20):
            written.append(_entry(number, 20))
    with closing(Journal(tmp_path, HEADER)) as read:
        finish(tmp_path, HEADER, PrepareOptions(), read)
    assert len(found) == 3
    assert max(found) <= 2 * 20 + 1  # that source's, the one before it, and the one passed on


def test_counts_classes_and_lists_are_those_of_the_entries(tmp_path):
    with closing(Journal(tmp_path, HEADER)) as written:
        for number in (3, 1, 0):
            written.append(_entry(number, number))
        finish(tmp_path, HEADER, PrepareOptions(), written)
    info = DatasetInfo.load(tmp_path)
    assert info.classes == ("odd",)  # the only even source gave no clip
    assert info.counts == {
        "scanned": 3,
        "clips": 4,
        "sources": 2,
        "skipped": 3,
        "seconds": float(40 / PrepareOptions().rate),
        "clipped_samples": 4,
        "split/train": 4,
    }
    assert [record.key for record in load_manifest(tmp_path)] == [
        "00001-0000",
        *(f"00003-{k:04d}" for k in range(3)),
    ]
    skipped = (tmp_path / "skipped.csv").read_text().splitlines()
    assert skipped == ["path,start_s,end_s,reason", *(f"0000{n},,,is too short" for n in (0, 1, 3))]
    assert (tmp_path / "captions.csv").read_text().splitlines() == [
        "source,caption",
        "00001,words of 00001",
        "00003,words of 00003",
    ]
