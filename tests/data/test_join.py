"""A preparation split over machines, and its parts joined."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundreel.cli.main import run
from soundreel.data import join
from soundreel.data.join import join_parts
from soundreel.data.manifest import DataError, DatasetInfo, load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.parts import Part
from soundreel.data.prepare import prepare_dataset
from soundreel.errors import SoundreelError

OPTIONS = PrepareOptions(
    height=8, width=8, test=2.0, labels="folder", clip_duration_s=2.0, shard_size_mb=1
)
COUNT = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_video_anywhere) -> Path:
    """Nine sources, one a copy of another and one broken: prepared at once, and in three parts."""
    root = tmp_path_factory.mktemp("parts")
    for number in range(7):
        path = root / "in" / f"class {number % 2}" / f"{number}.mkv"
        make_video_anywhere(path, first_level=20 * number, duration_s=4.5)
    shutil.copy(root / "in" / "class 1" / "3.mkv", root / "in" / "class 0" / "copy of 3.mkv")
    (root / "in" / "class 0" / "broken.mkv").write_bytes(b"no video at all")
    prepare_dataset(root / "in", root / "whole", OPTIONS)
    for number in range(1, COUNT + 1):
        part = Part(number=number, count=COUNT)
        prepare_dataset(root / "in", root / f"part {number}", OPTIONS, part=part)
    return root


def _parts(root: Path) -> list[Path]:
    return [root / f"part {number}" for number in range(1, COUNT + 1)]


def _content(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def _copies(made: Path, folder: Path) -> list[Path]:
    return [shutil.copytree(part, folder / part.name) for part in _parts(made)]


def test_joined_parts_are_byte_for_byte_what_one_run_makes(made, tmp_path):
    join_parts(_parts(made)[::-1], tmp_path / "joined")
    assert _content(tmp_path / "joined") == _content(made / "whole")
    records = load_manifest(tmp_path / "joined")
    assert len(records) == 16
    assert len({record.split for record in records if "3.mkv" in record.source}) == 1


def test_every_source_is_in_one_part_and_no_part_has_all(made):
    sources = [{record.source for record in load_manifest(part)} for part in _parts(made)]
    assert sum(map(len, sources)) == len(set().union(*sources)) == 8
    assert max(map(len, sources)) < 8


@given(st.text(), st.integers(1, 50))
def test_a_name_belongs_to_just_one_part(name, count):
    name = name.encode("utf-8", "ignore").decode()
    held = [Part(number=number + 1, count=count).holds(name) for number in range(count)]
    assert sum(held) == 1


def test_the_command_line_makes_and_joins_parts(made, tmp_path, capsys):
    flags = ["--height", "8", "--width", "8", "--test", "2", "--labels", "folder", "--workers", "0"]
    flags += ["--clip-duration-s", "2", "--shard-size-mb", "1", "--part", f"1/{COUNT}"]
    assert run(["prepare", str(made / "in"), str(tmp_path / "1"), *flags]) == 0
    assert _content(tmp_path / "1") == _content(made / "part 1")
    assert run(["join", str(tmp_path / "joined"), *map(str, _parts(made))]) == 0
    assert "16 of 20 to 20 frames" in capsys.readouterr().out
    assert run(["join", str(tmp_path / "none"), str(tmp_path / "1")]) == 2
    assert "2/3, 3/3 missing" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_interrupted_part_and_an_interrupted_join_continue_to_the_same(
    made, tmp_path, monkeypatch
):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    part = Part(number=1, count=COUNT)
    with pytest.raises(KeyboardInterrupt):
        prepare_dataset(made / "in", tmp_path / "part", OPTIONS, part=part, progress=stop)
    with pytest.raises(DataError, match="not a prepared data set"):
        join_parts([tmp_path / "part", *_parts(made)[1:]], tmp_path / "joined")
    prepare_dataset(made / "in", tmp_path / "part", OPTIONS, part=part)
    assert _content(tmp_path / "part") == _content(made / "part 1")

    copied, count = join._copied, 0

    def fail_at_the_fifth(*arguments):
        nonlocal count
        count += 1
        if count == 5:
            arguments[2].add("half", b"{}", b"written and not in the journal")
            raise KeyboardInterrupt
        return copied(*arguments)

    monkeypatch.setattr(join, "_copied", fail_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        join_parts(_parts(made), tmp_path / "joined")
    join_parts(_parts(made), tmp_path / "joined")
    assert count == 5 + 5  # four of nine sources were not copied again
    assert _content(tmp_path / "joined") == _content(made / "whole")


def test_a_part_without_any_source_joins_too(made, tmp_path, make_video):
    make_video(tmp_path / "in" / "only.mkv")
    options = replace(OPTIONS, labels="none", test=0.0)
    for number in (1, 2):
        part = Part(number=number, count=2)
        prepare_dataset(tmp_path / "in", tmp_path / f"{number}", options, part=part)
    prepare_dataset(tmp_path / "in", tmp_path / "whole", options)
    join_parts([tmp_path / "1", tmp_path / "2"], tmp_path / "joined")
    assert sorted(DatasetInfo.load(tmp_path / n).counts["clips"] for n in "12") == [0, 1]
    assert _content(tmp_path / "joined") == _content(tmp_path / "whole")


def test_parts_that_do_not_fit_are_named(made, tmp_path, make_video):
    parts = _parts(made)
    with pytest.raises(DataError, match="given twice"):
        join_parts([*parts, parts[0]], tmp_path / "out")
    with pytest.raises(DataError, match="2/3, 3/3 missing"):
        join_parts([parts[0]], tmp_path / "out")
    with pytest.raises(DataError, match="is no part of a data set"):
        join_parts([made / "whole", *parts], tmp_path / "out")
    with pytest.raises(DataError, match="is one of the parts"):
        join_parts(parts, parts[0], overwrite=True)
    other = replace(OPTIONS, silence_db=-50.0)
    prepare_dataset(made / "in", tmp_path / "other", other, part=Part(number=3, count=COUNT))
    with pytest.raises(DataError, match="made from other options"):
        join_parts([*parts[:2], tmp_path / "other"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_part_is_of_one_list_of_sources(made, tmp_path, make_video):
    shutil.copytree(made / "in", tmp_path / "in")
    parts = [Part(number=number, count=2) for number in (1, 2)]
    prepare_dataset(tmp_path / "in", tmp_path / "1", OPTIONS, part=parts[0])
    make_video(tmp_path / "in" / "class 0" / "later.mkv")
    with pytest.raises(DataError, match="prepared otherwise: listing was"):
        prepare_dataset(tmp_path / "in", tmp_path / "1", OPTIONS, part=parts[0])
    prepare_dataset(tmp_path / "in", tmp_path / "2", OPTIONS, part=parts[1])
    with pytest.raises(DataError, match="made from other sources"):
        join_parts([tmp_path / "1", tmp_path / "2"], tmp_path / "out")


def test_a_damaged_or_foreign_part_is_refused(made, tmp_path):
    parts = _copies(made, tmp_path)
    part = next(part for part in parts if load_manifest(part))
    record = load_manifest(part)[0]
    shard = part / record.shard
    content = bytearray(shard.read_bytes())
    content[record.offset + 100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match=f"{record.key} is damaged"):
        join_parts(parts, tmp_path / "out")
    _rewrite(part, "key", "../../../tmp/x")
    with pytest.raises(DataError, match="its keys are odd"):
        join_parts(parts, tmp_path / "out 2")


def test_a_split_that_is_no_plain_name_writes_nothing(made, tmp_path):
    parts = _copies(made, tmp_path / "parts")
    _rewrite(next(part for part in parts if load_manifest(part)), "split", "../../outside")
    with pytest.raises(DataError, match="cannot be the name of a split"):
        join_parts(parts, tmp_path / "out")
    assert not list(tmp_path.rglob("*outside*"))


def _rewrite(part: Path, name: str, value: str) -> None:
    """Change a field of all clips and sources in a journal, whose lines keep no checksum."""
    lines = [json.loads(line) for line in (part / "journal.jsonl").read_text().splitlines()]
    for line in lines:
        del line["checksum"]
        for holder in (line, *line.get("clips", ())):
            holder.update({name: value} if name in holder else {})
    (part / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "1/x", "-1/2", "1/2/3"])
def test_what_is_no_part_is_named(text):
    with pytest.raises(SoundreelError, match="part"):
        Part.parse(text)
