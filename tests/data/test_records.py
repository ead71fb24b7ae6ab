"""Manifests of any length: read line by line, in memory that does not grow with them."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest

from soundreel.data.manifest import (
    ClipRecord,
    DataError,
    DatasetInfo,
    load_manifest,
    save_manifest,
)
from soundreel.data.records import BLOCK, Records

LENGTHS = (3, 16, 40, 17)
SPLITS = ("train", "test", "train", "valid", "train")


def record(number):
    return ClipRecord(
        key=f"clip-{number:08d}",
        split=SPLITS[number % 5],
        label=-1,
        source=f"folder/video-{number // 3:08d}.mp4",
        group=f"folder/video-{number // 3:08d}.mp4",
        start_s=10.0 * (number % 3),
        num_frames=LENGTHS[number % 4],
        num_samples=1600,
        num_clipped=0,
        shard=f"shards/train-{number // 4096:06d}.tar",
        offset=512 * number,
        num_bytes=1,
        sha256="0" * 64,
    )


def write(root, count):
    root.mkdir()
    info = DatasetInfo(
        height=8,
        width=8,
        frame_rate=Fraction(10),
        sample_rate=1000,
        num_channels=1,
        classes=(),
        origin="videos",
        counts={"clips": count},
        manifest_checksum=save_manifest(root, map(record, range(count))),
    )
    info.save(root)
    return root


def windows(num_frames):
    return max(0, num_frames - 15)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """More than two blocks of the index."""
    return write(tmp_path_factory.mktemp("records") / "set", 2 * BLOCK + 500)


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("split", ["train", "valid", ""])
def test_records_and_items_are_those_of_the_whole_list(root, split, has_index, monkeypatch):
    if not has_index:
        info = replace(DatasetInfo.load(root), checksums={})
        monkeypatch.setattr(DatasetInfo, "load", lambda root: info)
    expected = [r for r in load_manifest(root, split) if windows(r.num_frames)]
    records = Records(root, split, windows)
    assert len(records) == len(expected)
    assert records[:] == expected
    assert list(records) == expected
    assert records[-1] == expected[-1]
    with pytest.raises(IndexError):
        records[len(records)]
    places = [(n, i) for n, r in enumerate(expected) for i in range(windows(r.num_frames))]
    assert records.num_items == len(places)
    for item in (*range(0, len(places), 97), len(places) - 1):
        assert records.locate(item) == places[item]
    assert records.longest == 40


def test_a_split_without_long_clips_has_no_records(root):
    records = Records(root, "train", lambda num_frames: max(0, num_frames - 40))
    assert (len(records), records.num_items, records.longest) == (0, 0, 40)
    assert Records(root, "other", windows).longest == 0


def test_a_changed_line_is_found_when_it_is_read_and_a_changed_index_at_once(tmp_path):
    root = write(tmp_path / "set", 20)
    path = root / "manifest.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"clip-00000005", b"clip-00000095"))
    records = Records(root, "", lambda num_frames: 1)
    assert records[4].key == "clip-00000004"
    with pytest.raises(DataError, match=r"manifest\.jsonl, line 6: damaged since"):
        records[5]
    path.write_bytes(whole)
    index = root / "manifest.index"
    index.write_bytes(index.read_bytes()[:-1] + b"\7")
    with pytest.raises(DataError, match=r"manifest\.index: damaged since"):
        Records(root, "", windows)


READ = """
import sys, time
from pathlib import Path
import numpy as np
import torch
from soundreel.data.loader import Loader
from soundreel.data.dataset import PreparedDataset
from soundreel.types import ClipSpec

def peak_kb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

np.unique(np.zeros(9))
before, started = peak_kb(), time.process_time()
spec = ClipSpec(num_frames=16, height=8, width=8, sample_rate=1000)
dataset = PreparedDataset(Path(sys.argv[1]), spec=spec)
plan = Loader(dataset, global_batch_size=8, seed=0)._plan()
drawn = [item for _ in range(50) for item, _ in next(plan)]
keys = {dataset.records[dataset._locate(item)[0]].key for item in drawn}
print(before, peak_kb(), time.process_time() - started, len(dataset), len(keys))
"""


def measured(root):
    """Peak of memory in KB before and after, seconds of computing, windows, clips drawn."""
    done = subprocess.run(
        [sys.executable, "-c", READ, root], capture_output=True, text=True, check=True
    )
    before, peak, seconds, num_windows, num_clips = done.stdout.split()
    return int(before), int(peak), float(seconds), int(num_windows), int(num_clips)


def compare(tmp_path, count):
    _, small, _, few, _ = measured(write(tmp_path / "small", 1000))
    _, large, seconds, many, num_clips = measured(write(tmp_path / "large", count))
    print(f"1,000: {small / 1e3:.1f} MB; {count:,}: {large / 1e3:.1f} MB, {seconds:.2f} s")
    assert many == few * count // 1000
    assert num_clips > 300  # of 400 that were drawn
    assert large <= 1.1 * small
    return seconds


def test_sixty_times_the_clips_take_no_more_memory(tmp_path):
    compare(tmp_path, 60_000)


@pytest.mark.slow
def test_a_million_clips_start_in_seconds_and_take_no_more_memory(tmp_path):
    assert compare(tmp_path, 1_000_000) < 3.0  # of computing, which no other process changes
