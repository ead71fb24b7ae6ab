"""Running prepare again: after the end, after a kill, with more files, with other options."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from soundreel.data.manifest import DataError, DatasetInfo, load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.data.workers import convert_all
from soundreel.files import locked
from soundreel.locks import FolderInUseError

OPTIONS = PrepareOptions(height=8, width=8, test=2.0)

KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from soundreel.data import journal, shards
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset

def killer(original, calls):
    left = [calls]
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    return call

where, calls = sys.argv[3], int(sys.argv[4])
owner, name = {
    "before the journal": (journal.Journal, "append"),
    "between two members": (shards.ShardWriter, "_append"),
    "at the end of a shard": (shards.ShardWriter, "close"),
}[where]
setattr(owner, name, killer(getattr(owner, name), calls))
prepare_dataset(
    Path(sys.argv[1]), Path(sys.argv[2]), PrepareOptions(height=8, width=8, test=2.0)
)
"""


@pytest.fixture
def videos(tmp_path, make_video) -> Path:
    for number in range(6):
        make_video(tmp_path / "in" / f"{number}.mkv", first_level=20 * number)
    (tmp_path / "in" / "broken.mkv").write_bytes(b"no video at all")
    return tmp_path / "in"


def _content(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_second_run_does_nothing(videos, tmp_path):
    assert prepare_dataset(videos, tmp_path / "out", OPTIONS).num_converted == 7
    before = _content(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert prepare_dataset(videos, tmp_path / "out", OPTIONS).num_converted == 0
    assert _content(tmp_path / "out") == before
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    assert {path.name for path in times if times[path] != written[path]} <= {".lock"}


@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("before the journal", 4),
        ("between two members", 6),
        ("at the end of a shard", 2),
    ],
)
def test_a_killed_run_continues_to_the_same_data_set(videos, tmp_path, where, calls):
    prepare_dataset(videos, tmp_path / "whole", OPTIONS)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, videos, tmp_path / "out", where, str(calls)],
        capture_output=True,
        timeout=300,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (tmp_path / "out" / "dataset.json").exists()
    prepare_dataset(videos, tmp_path / "out", OPTIONS)
    assert _content(tmp_path / "out") == _content(tmp_path / "whole")


def test_half_written_lines_and_clips_are_made_again(videos, tmp_path):
    prepare_dataset(videos, tmp_path / "out", OPTIONS)
    whole = _content(tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    journal.write_bytes(whole["journal.jsonl"][:-40])
    for name in ("dataset.json", "manifest.jsonl"):
        (tmp_path / "out" / name).unlink()
    with (tmp_path / "out" / "shards" / "train-000000.tar").open("ab") as shard:
        shard.write(b"half a clip" * 100)
    (tmp_path / "out" / "shards" / "train-000001.tar").write_bytes(b"stray")
    assert prepare_dataset(videos, tmp_path / "out", OPTIONS).num_converted == 1
    assert _content(tmp_path / "out") == whole


def test_added_files_are_appended_and_move_no_other(videos, tmp_path, make_video):
    prepare_dataset(videos, tmp_path / "out", OPTIONS)
    before = {record.key: record for record in load_manifest(tmp_path / "out")}
    make_video(videos / "0a.mkv", first_level=5)
    make_video(videos / "z.mkv", first_level=7)
    report = prepare_dataset(videos, tmp_path / "out", OPTIONS)
    assert (report.num_converted, report.info.counts["clips"]) == (2, 8)
    after = {record.key: record for record in load_manifest(tmp_path / "out")}
    assert {key: after[key] for key in before} == before
    assert report.info.counts["split/test"] == 2


def test_other_options_or_another_source_are_refused_unless_overwritten(videos, tmp_path):
    prepare_dataset(videos, tmp_path / "out", OPTIONS)
    before = _content(tmp_path / "out")
    other = replace(OPTIONS, height=16)
    with pytest.raises(DataError, match=r"height was 8, is now 16; .*--overwrite"):
        prepare_dataset(videos, tmp_path / "out", other)
    (tmp_path / "elsewhere").symlink_to(videos)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "0.mkv").write_bytes((videos / "0.mkv").read_bytes())
    with pytest.raises(DataError, match=r"origin was .*in', is now .*copy'"):
        prepare_dataset(tmp_path / "copy", tmp_path / "out", OPTIONS)
    assert _content(tmp_path / "out") == before
    prepare_dataset(videos, tmp_path / "out", other, overwrite=True)
    assert DatasetInfo.load(tmp_path / "out").height == 16


def test_options_that_left_nothing_usable_may_be_changed_freely(videos, tmp_path):
    with pytest.raises(DataError, match="nothing usable"):
        prepare_dataset(videos, tmp_path / "out", replace(OPTIONS, min_size=500))
    assert prepare_dataset(videos, tmp_path / "out", OPTIONS).info.counts["clips"] == 6


def test_a_source_that_changed_is_noticed(videos, tmp_path, make_video):
    prepare_dataset(videos, tmp_path / "out", OPTIONS)
    make_video(videos / "3.mkv", duration_s=3.0)
    with pytest.raises(DataError, match=r"1 sources changed .*3\.mkv"):
        prepare_dataset(videos, tmp_path / "out", OPTIONS)


def test_two_runs_at_once_are_refused(videos, tmp_path):
    prepare_dataset(videos, tmp_path / "out", OPTIONS)
    refused = pytest.raises(FolderInUseError, match=f"out: in use by process {os.getpid()} on ")
    with locked(tmp_path / "out"), refused:
        prepare_dataset(videos, tmp_path / "out", OPTIONS, overwrite=True)
    assert len(load_manifest(tmp_path / "out")) == 6


def test_a_destination_inside_the_source_is_not_prepared_itself(videos):
    prepare_dataset(videos, videos / "out", OPTIONS)
    assert prepare_dataset(videos, videos / "out", OPTIONS).num_converted == 0


def test_worker_processes_make_the_same_data_set(videos, tmp_path):
    prepare_dataset(videos, tmp_path / "one", OPTIONS, num_workers=0)
    seen = []
    prepare_dataset(
        videos,
        tmp_path / "two",
        OPTIONS,
        num_workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert _content(tmp_path / "two") == _content(tmp_path / "one")
    assert (seen[-1], len(seen)) == ((7, 7), 7)


CRASHING_RUN = """
import os, sys
from pathlib import Path
from soundreel.data import workers
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset

def crash_on_three(source, options, spool):
    if source.name == "3.mkv":
        os.abort()
    return real(source, options, spool)

real = workers.convert
workers.convert = crash_on_three
if __name__ == "__main__":
    prepare_dataset(
        Path(sys.argv[1]), Path(sys.argv[2]), PrepareOptions(height=8, width=8), num_workers=1
    )
"""


@pytest.mark.slow
def test_a_file_that_crashes_its_worker_is_left_out_and_the_rest_is_not(videos, tmp_path):
    for name in ("1.mkv", "2.mkv", "5.mkv"):
        (videos / name).unlink()
    script = tmp_path / "run.py"
    script.write_text(CRASHING_RUN)
    run = subprocess.run(
        [sys.executable, script, videos, tmp_path / "out"], capture_output=True, timeout=300
    )
    assert run.returncode == 0, run.stderr.decode()
    sources = [record.source for record in load_manifest(tmp_path / "out")]
    assert sources == ["0.mkv", "4.mkv"]
    assert "3.mkv,,,crashes the decoder" in (tmp_path / "out" / "skipped.csv").read_text()


def test_a_full_disk_ends_the_run_instead_of_blaming_the_videos(videos, tmp_path, monkeypatch):
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        prepare_dataset(videos, tmp_path / "out", OPTIONS)
    monkeypatch.undo()
    journal = (tmp_path / "out" / "journal.jsonl").read_text().splitlines()
    assert all("No space" not in json.loads(line).get("skipped", "") for line in journal)
    assert prepare_dataset(videos, tmp_path / "out", OPTIONS).info.counts["clips"] == 6


def test_nothing_to_convert_gives_nothing(tmp_path):
    assert list(convert_all([], OPTIONS, tmp_path / "spool", 2)) == []
