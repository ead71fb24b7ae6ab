"""Errors that a person can put right have a base of their own; any other is a defect."""

import ast
from pathlib import Path

import pytest

from soundreel.app.uploads import UploadError
from soundreel.checkpoints.errors import CheckpointError
from soundreel.cli.main import run
from soundreel.config_io import ConfigError
from soundreel.data.manifest import DataError
from soundreel.errors import SoundreelError
from soundreel.media.errors import MediaError
from soundreel.metrics.sync.signals import SyncError
from soundreel.metrics.weights import MetricWeightsError
from soundreel.training.non_finite import NonFiniteLossError

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "soundreel"
DEFECTS = {"ValueError", "TypeError", "KeyError", "RuntimeError", "Exception", "AssertionError"}
INPUT_CHECKS = [
    *(path for part in ("cli", "app", "study", "media") for path in (PACKAGE / part).rglob("*.py")),
    *(path for name in ("clip", "config") for path in PACKAGE.glob(f"{name}.py")),
    *(
        path
        for name in ("config", "*_config", "pipeline", "settings", "presets")
        for path in (PACKAGE / "systems").rglob(f"{name}.py")
    ),
]
"""Where arguments, settings and files of users are checked."""


@pytest.mark.parametrize(
    "kind",
    [
        CheckpointError,
        ConfigError,
        DataError,
        MediaError,
        MetricWeightsError,
        NonFiniteLossError,
        SyncError,
        UploadError,
    ],
)
def test_every_expected_error_has_the_one_base(kind):
    assert issubclass(kind, SoundreelError)


def raised(text):
    """Line and name of every exception that a module raises by name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise):
            kind = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(kind, ast.Name):
                yield node.lineno, kind.id


def test_checks_of_what_users_give_raise_expected_errors():
    assert len(INPUT_CHECKS) > 40
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} raises {name}"
        for path in INPUT_CHECKS
        for line, name in raised(path.read_text())
        if name in DEFECTS
    ]
    assert wrong == []


def test_the_walk_sees_an_error_of_the_wrong_kind():
    text = "def f():\n    raise ValueError('x')\n    raise SoundreelError('y')\n    raise\n"
    assert list(raised(text)) == [(2, "ValueError"), (3, "SoundreelError")]


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError])
def test_a_defect_is_not_hidden(kind, monkeypatch):
    def broken(arguments):
        raise kind("a defect")

    monkeypatch.setattr("soundreel.cli.train.train", broken)
    with pytest.raises(kind):
        run(["train", "mm-diffusion-tiny"])


def test_a_defect_ends_with_its_traceback_and_code_1(python):
    code = """
import soundreel.cli.main, soundreel.cli.train, sys
soundreel.cli.train.train = lambda arguments: int("deep inside")
sys.argv = ["soundreel", "train"]
soundreel.cli.main.main()
"""
    done = python("-c", code)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "invalid literal for int() with base 10: 'deep inside'" in done.stderr


def test_an_expected_error_is_one_line_and_code_2(monkeypatch, capsys):
    def refused(arguments):
        raise SoundreelError("steps must be at least 1,\n got 0")

    monkeypatch.setattr("soundreel.cli.train.train", refused)
    assert run(["train", "mm-diffusion-tiny"]) == 2
    assert capsys.readouterr().err == "soundreel: steps must be at least 1, got 0\n"
