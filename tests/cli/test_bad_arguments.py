"""The same mistakes at every command: one line that says what to do, before anything is written."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

from soundreel.cli.main import run

STUDY = "study create out --system one=VIDEOS --system two=VIDEOS"

UNWRITABLE = (
    "generate MODEL --out file/out",
    "prepare VIDEOS file/out --height 16 --width 16",
    "render file/out --count 1",
    "evaluate DATA MODEL --out file/out.html",
    "demo MODEL --out file/out",
    "upscale VIDEOS --model MODEL --out file/out",
    "pack MODEL file/out",
    "study create file/out --system one=VIDEOS --system two=VIDEOS",
)
NO_DEVICE = (
    "generate MODEL --out out --device cuda:9",
    "evaluate DATA MODEL --out out.html --device cuda:9",
    "demo MODEL --out out --device cuda:9",
    "upscale VIDEOS --model MODEL --out out --device cuda:9",
    "app MODEL --device cuda:9",
)
NO_SEED = (
    "generate MODEL --out out --seed -1",
    "render out --count 1 --seed -1",
    "evaluate DATA MODEL --out out.html --seed -1",
    "demo MODEL --out out --seed -1",
    "upscale VIDEOS --model MODEL --out out --seed -1",
    f"{STUDY} --seed -1",
)
NO_STEPS = ("generate MODEL --out out --num-steps 0",)
NO_MODEL = (
    "generate RUN --out out",
    "evaluate DATA RUN --out out.html",
    "demo RUN --out out",
    "upscale VIDEOS --model RUN --out out",
    "pack RUN out",
    "export RUN out",
    "app RUN",
)


@pytest.fixture(autouse=True)
def whole_process(monkeypatch):
    """`app` sets variables and a handler of signals for the whole process."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, os.environ.get(name, "False"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        *((line, "file") for line in UNWRITABLE),
        *((line, "device 'cuda:9' does not exist here; one of cpu") for line in NO_DEVICE),
        *((line, "seed") for line in NO_SEED),
        *((line, "num_steps must be at least 1, got 0") for line in NO_STEPS),
        *((line, "is a training run; its model is") for line in NO_MODEL),
    ],
)
def test_it_is_one_line_and_nothing_is_written(
    line, words, small_run, small_dataset, tmp_path, monkeypatch, capsys
):
    if line.startswith("app") and find_spec("gradio") is None:
        pytest.skip("needs pip install 'soundreel[app]'")
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("not a folder")
    places = {
        "MODEL": str(small_run / "model"),
        "RUN": str(small_run),
        "DATA": str(small_dataset),
        "VIDEOS": str(small_dataset.parent / "videos"),
    }
    arguments = [places.get(word, word) for word in line.split()]
    for index, word in enumerate(arguments):
        name, _, place = word.partition("=")
        if place in places:
            arguments[index] = f"{name}={places[place]}"
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("soundreel: ")
    assert shown.err.count("\n") == 1
    assert words in shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
