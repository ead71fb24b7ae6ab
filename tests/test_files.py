"""Writing: whole or not at all, whatever happens; locks; leftovers; checksums."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from soundreel import files
from soundreel.files import (
    FileError,
    checksum,
    file_checksum,
    locked,
    replace_folder,
    sweep,
    write_text,
    writing_file,
    writing_folder,
)
from soundreel.locks import FolderInUseError

DEAD = 4_194_305  # above the largest process number of Linux


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def make_folder(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "index").write_text(text)
    return folder


def leftover(name: str, *, pid: int = DEAD, host: str = files._HOST, kind: str = "part") -> str:
    return f".{name}.{host}-{pid}-0.{kind}"


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_file_is_replaced_whole_and_gets_ordinary_permissions(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("old")
    before = os.umask(0o027)
    try:
        write_text(path, "new\r\n\u00e9")
        with writing_file(tmp_path / "some.safetensors") as temporary:
            save_file({"x": torch.zeros(2)}, temporary)  # which makes a file for its owner alone
            assert path.name not in names(tmp_path)[0]
    finally:
        os.umask(before)
    assert path.read_bytes() == "new\r\n\u00e9".encode()
    assert (tmp_path / "some.safetensors").stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["some.safetensors", "some.txt"]


def test_after_an_error_the_old_file_stands_and_nothing_else(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), writing_file(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["some.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed below
    message = r"some: cannot be written \(No space left on device\); free some"
    with full, pytest.raises(FileError, match=message), writing_file(tmp_path / "some"):
        full.write(b"x")
    assert names(tmp_path) == []


def test_a_full_disk_met_by_safetensors_names_the_folder(tmp_path):
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    message = r"some: cannot be written \(.*No space"
    with pytest.raises(FileError, match=message), writing_folder(tmp_path / "some"):
        raise SafetensorError(said)
    with pytest.raises(SafetensorError, match="header"), writing_folder(tmp_path / "some"):
        raise SafetensorError("header too large")  # nothing that the disk has to do with
    with pytest.raises(FileError, match="absent"):
        write_text(tmp_path / "absent" / "some.txt", "x")
    assert names(tmp_path) == []


def test_errors_about_other_files_pass_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="source"), writing_file(tmp_path / "some"):
        (tmp_path / "source" / "file").read_bytes()


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, can_exchange):
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    target = make_folder(tmp_path / "model", "old")
    (target / "more").write_text("of the old one")
    with writing_folder(target, marker="index") as temporary:
        (temporary / "index").write_text("new")
        assert (target / "index").read_text() == "old"
    assert (target / "index").read_text() == "new"
    assert names(tmp_path) == ["model", "model/index"]
    (tmp_path / "ordinary").mkdir()
    assert target.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_only_folders_of_the_same_kind_are_replaced(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("years")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "work")
    for name, marker in (("work", "index"), ("work", ""), ("file", "index"), ("link", "index")):
        refused = pytest.raises(FileError, match=f"{name}: exists and")
        with refused, writing_folder(tmp_path / name, marker=marker):
            pytest.fail("the block ran")
    assert names(tmp_path) == ["file", "link", "work", "work/thesis.txt"]
    (tmp_path / "empty").mkdir()
    with writing_folder(tmp_path / "empty") as temporary:
        (temporary / "index").write_text("new")
    assert (tmp_path / "empty" / "index").read_text() == "new"


REPLACE = """
import sys
from pathlib import Path
from soundreel.files import writing_folder
number = 0
while True:
    number += 1
    with writing_folder(Path(sys.argv[1]), marker="index") as temporary:
        (temporary / "index").write_text(str(number))
        (temporary / "copy").write_text(str(number))
"""


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs exchanging renames")
def test_there_is_a_whole_folder_at_every_moment_and_after_every_kill(tmp_path):
    target = make_folder(tmp_path / "model", "0")
    (target / "copy").write_text("0")
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", REPLACE, str(target)])
        try:
            seen, deadline = set(), time.monotonic() + 60
            while len(seen) < 20 and time.monotonic() < deadline:
                seen.add((target / "index").read_text())  # raises if there is none
        finally:
            process.kill()
            process.wait()
        assert len(seen) >= 20
        assert (target / "index").read_text() == (target / "copy").read_text()
    with writing_folder(target, marker="index") as temporary:
        (temporary / "index").write_text("last")
    assert names(tmp_path) == ["model", "model/index"]


def test_the_sweep_takes_what_the_dead_left_and_nothing_else(tmp_path):
    kept = [
        "model/index",
        ".hidden",
        ".cache-abcdefgh/file",
        "movie.part",
        leftover("own", pid=os.getppid()),
        leftover("far", host="00000000"),
    ]
    for name in [*kept, leftover("a.txt"), leftover("m") + "/x", leftover("m", pid=os.getpid())]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with writing_file(tmp_path / "now") as temporary:
        removed = sweep(tmp_path)
        assert temporary.exists()
    assert {path.name for path in removed} == {
        leftover("a.txt"),
        leftover("m"),
        leftover("m", pid=os.getpid()),  # of a process that had our number
    }
    files_now = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files_now == {*kept, "now"}
    os.utime(tmp_path / leftover("far", host="00000000"), (0, 0))
    assert [path.name for path in sweep(tmp_path)] == [leftover("far", host="00000000")]


def test_a_folder_put_aside_by_a_killed_process_comes_back(tmp_path):
    make_folder(tmp_path / leftover("model", kind="old"), "the only one")
    sweep(tmp_path)
    assert names(tmp_path) == ["model", "model/index"]
    make_folder(tmp_path / leftover("model", kind="old"), "replaced meanwhile")
    sweep(tmp_path)
    assert (tmp_path / "model" / "index").read_text() == "the only one"
    assert names(tmp_path) == ["model", "model/index"]


def test_a_lock_sweeps_the_whole_folder_of_what_older_releases_left_too(tmp_path):
    left = [".x.mp4.12.part", "a/.log.jsonl.tmp", "manifest.jsonl.tmp", "a/.writing-000000008/x"]
    kept = ["a/notes.tmp.txt", "thesis.tmp", ".draft.tmp", "b/.film.part", ".git-worktree/x"]
    for name in [*left, *kept, f"a/{leftover('deep')}"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    with locked(tmp_path):
        assert (tmp_path / ".lock").is_file()
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == set(kept)


HOLD = """
import sys, time
from pathlib import Path
from soundreel.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(120)
"""
TRY = """
import sys
from pathlib import Path
from soundreel.files import FolderInUseError, locked
try:
    with locked(Path(sys.argv[1])):
        print("free")
except FolderInUseError as error:
    print(error)
"""


def test_a_second_process_is_told_who_holds_a_folder_until_that_one_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        said = run(TRY, tmp_path / "run").stdout
        assert said.startswith(f"{tmp_path / 'run'}: in use by process {holder.pid} on ")
        assert str(tmp_path / "run") in said.partition("(")[2]  # the command
    finally:
        holder.kill()
        holder.communicate()
    assert run(TRY, tmp_path / "run").stdout == "free\n"
    assert names(tmp_path) == ["run"]


def test_within_a_process_a_lock_excludes_too_and_ends_with_its_block(tmp_path):
    refused = pytest.raises(FolderInUseError, match=f"process {os.getpid()} on")
    with locked(tmp_path), refused, locked(tmp_path):
        pytest.fail("the block ran")
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    (tmp_path / ".lock").write_text("not JSON")
    with locked(tmp_path):
        pass
    assert names(tmp_path) == []


def _wait(event) -> None:
    event.wait(60)


def test_forked_workers_do_not_hold_their_parents_locks(tmp_path):
    context = multiprocessing.get_context("fork")
    over = context.Event()
    with locked(tmp_path):
        worker = context.Process(target=_wait, args=(over,))
        worker.start()
    try:
        with locked(tmp_path):  # although the worker lives
            assert worker.is_alive()
    finally:
        over.set()
        worker.join()
    assert worker.exitcode == 0


def test_replacing_by_rename_keeps_the_new_content(tmp_path):
    replace_folder(make_folder(tmp_path / "new", "new"), tmp_path / "absent")
    replace_folder(make_folder(tmp_path / "new", "newer"), tmp_path / "absent")
    assert (tmp_path / "absent" / "index").read_text() == "newer"
    assert names(tmp_path) == ["absent", "absent/index"]


@given(st.lists(st.binary(max_size=100), min_size=1), st.integers(0), st.integers(0, 7))
def test_one_changed_bit_changes_the_checksum(parts, place, bit):
    whole = b"".join(parts)
    assert checksum(*parts) == checksum(whole) == zlib.crc32(whole)
    if whole:
        damaged = bytearray(whole)
        damaged[place % len(whole)] ^= 1 << bit
        assert checksum(bytes(damaged)) != checksum(whole)


def test_a_file_has_the_checksum_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "x").write_bytes(content)
    assert file_checksum(tmp_path / "x") == f"{zlib.crc32(content):08x}"
