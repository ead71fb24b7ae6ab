"""`soundreel prepare` as people type it."""

import re

import pytest

from soundreel.cli.main import run
from soundreel.data.convert import convert
from soundreel.data.manifest import DatasetInfo


@pytest.fixture
def videos(tmp_path, make_video):
    for name in ("rain/a", "rain/b", "wind/c"):
        make_video(tmp_path / "in" / f"{name}.mkv")
    (tmp_path / "in" / "notes.txt").write_text("no video")
    return tmp_path / "in"


def _prepare(*arguments) -> int:
    return run(["prepare", *map(str, arguments), "--workers", "0"])


def test_flags_reach_the_data_set_and_the_result_is_told(videos, tmp_path, capsys):
    code = _prepare(videos, tmp_path / "out", "--height", 8, "--width", 16, "--labels", "folder")
    shown = capsys.readouterr()
    assert code == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert (info.height, info.width, info.classes) == (8, 16, ("rain", "wind"))
    assert "3 of 20 to 20 frames, 6.0 s in all" in shown.out
    assert "classes: rain 2, wind 1" in shown.out
    assert "skipped.csv" in shown.out
    assert (
        _prepare(videos, tmp_path / "out", "--height", 8, "--width", 16, "--labels", "folder") == 0
    )
    assert "Nothing to do" in capsys.readouterr().out


def test_a_recipe_sets_defaults_that_flags_change(videos, tmp_path):
    assert _prepare(videos, tmp_path / "out", "landscape", "--height", 8, "--width", 8) == 0
    info = DatasetInfo.load(tmp_path / "out")
    assert (info.options["labels"], info.height, info.counts["skipped"]) == ("folder", 8, 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-size", "500"], "nothing usable"),
        (["--frame-rate", "ten"], "a fraction such as 30000/1001"),
        (["--labels", "list"], "need a CSV file"),
    ],
)
def test_mistakes_end_with_what_to_do_and_code_2(videos, tmp_path, capsys, flags, message):
    assert _prepare(videos, tmp_path / "out", *flags) == 2
    error = re.sub(r"[^!-~]+", " ", capsys.readouterr().err)  # without frames around the words
    assert message in error
    assert "Traceback" not in error


def test_other_options_for_a_finished_data_set_end_with_code_2(videos, tmp_path, capsys):
    assert _prepare(videos, tmp_path / "out", "--height", 8, "--width", 8) == 0
    assert _prepare(videos, tmp_path / "out", "--height", 16, "--width", 8) == 2
    assert "height was 8, is now 16" in capsys.readouterr().err
    assert _prepare(videos, tmp_path / "out", "--height", 16, "--width", 8, "--overwrite") == 0


def test_a_defect_costs_its_source_only_and_ends_with_code_1(
    videos, tmp_path, capsys, monkeypatch, caplog
):
    names = sorted(path.name for path in videos.rglob("*.mkv"))

    def convert_or_fail(source, options, spool):
        if source.name.endswith(names[0]):
            raise ValueError("a defect deep inside")
        return convert(source, options, spool)

    monkeypatch.setattr("soundreel.data.workers.convert", convert_or_fail)
    code = _prepare(videos, tmp_path / "out", "--height", "8", "--width", "8")
    assert code == 1
    assert "defect in soundreel: 1 sources" in capsys.readouterr().out
    assert "Traceback" in caplog.text
    assert DatasetInfo.load(tmp_path / "out").counts["clips"] == len(names) - 1
    skipped = (tmp_path / "out" / "skipped.csv").read_text()
    assert "unforeseen ValueError: a defect deep inside" in skipped
