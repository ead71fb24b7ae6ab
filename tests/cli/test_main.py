"""The front door: help, unknown commands, errors."""

import subprocess
import sys
from importlib import import_module

import pytest
import torch

from soundreel.cli.main import COMMANDS, run

HELP = "from soundreel.cli.main import run; run(['--help'])"


def test_help_imports_nothing_heavy():
    code = f"{HELP}; import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "soundreel.cli.main" in loaded
    assert not loaded & {"torch", "numpy", "av", "tyro", "rich", "pydantic"}
    # A count of modules is the same on every machine, however busy it is.
    assert len(loaded) < 150


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_names_every_command(arguments, capsys):
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_the_version_is_told(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("soundreel 0.")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    attribute = f"{name}_" if name == "import" else name
    assert callable(getattr(import_module(f"soundreel.cli.{attribute}"), attribute))
    assert run([name, "--help"]) == 0
    assert f"usage: soundreel {name}" in capsys.readouterr().out


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a failed command."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("soundreel: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_an_unknown_command_is_one_line_with_the_known_ones(capsys):
    assert run(["genrate"]) == 2
    line = error_line(capsys)
    assert "'genrate'" in line
    assert "generate" in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["info", "nowhere"], "nowhere"),
        (["generate", "nowhere/at/all", "--out", "x"], "nowhere/at/all"),
        (["train", "mm-diffusion-huge", "--data", "d", "--out", "o"], "mm-diffusion-huge"),
        (["train", "mm-diffusion-tiny", "--config", "no.yaml"], "no.yaml"),
        (["prepare", "nowhere", "dest"], "nowhere"),
        (["upscale", "nowhere.mp4", "--model", "nowhere", "--out", "x"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    assert named in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_flag_is_exit_code_2(capsys):
    assert run(["generate", "model", "--out", "x", "--cuont", "3"]) == 2
    assert "--cuont" in capsys.readouterr().err


def test_a_file_of_another_kind_is_no_media_file(capsys, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("no film")
    assert run(["info", str(text)]) == 2
    assert "notes.txt" in error_line(capsys)


def test_ctrl_c_is_exit_code_130(monkeypatch, capsys):
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("soundreel.cli.train.train", interrupted)
    assert run(["train", "mm-diffusion-tiny"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    "need", [lambda: bytearray(2**62), lambda: torch.empty(2**50)], ids=["python", "pytorch"]
)
def test_memory_that_is_not_there_is_one_line(need, monkeypatch, capsys):
    monkeypatch.setattr("soundreel.cli.main._run_command", lambda *_: need())
    assert run(["info"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("soundreel: out of memory")
    assert told.count("\n") == 1


def test_another_error_of_running_shows_where_it_came_from(monkeypatch):
    def fails(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("soundreel.cli.main._run_command", fails)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(["info"])
