"""From a folder of one's own videos to clips on the command line, with labels and without."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import soundreel
from soundreel.cli.main import run
from soundreel.clip import Clip

STEPS = {"first-stage": 1, "autoencoder": 8, "adversarial": 1, "generator": 1}
"""Of eight clips each; what the audio encoder has beyond its image comes to life only slowly."""

SHORT = ("--decoding.num-steps", "2", "--sampling.num-steps", "2", "--first-stage.no-adversary")
FEW = [
    flag
    for stage, steps in STEPS.items()
    for flag in (f"--{stage}.train.total-samples", str(8 * steps))
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Videos in the folders `cat` and `dog`, prepared as the README says."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    for index, name in enumerate(("cat", "dog", "dog")):
        frames = rng.integers(0, 256, (20, 36, 48, 3), dtype=np.uint8)
        sound = (0.3 * rng.standard_normal((1, 32_000))).clip(-1, 1).astype(np.float32)
        (root / "videos" / name).mkdir(parents=True, exist_ok=True)
        Clip(frames, sound, Fraction(10), 16_000).save(root / "videos" / name / f"{index}.mp4")
    flags = [
        "--labels",
        "folder",
        "--height",
        "32",
        "--width",
        "32",
        "--workers",
        "1",
        "--min-duration-s",
        "1",
    ]
    assert run(["prepare", str(root / "videos"), str(root / "data"), *flags]) == 0
    return root / "data"


def train(data: Path, out: Path, *flags: str) -> Path:
    words = ["train", "mm-ldm-tiny", "--data", str(data), "--out", str(out), "--all-stages"]
    command = [sys.executable, "-m", "soundreel", *words, *FEW, *SHORT, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "model"


@pytest.mark.slow
def test_a_model_of_labelled_videos_is_asked_by_name(data, tmp_path, capsys):
    model = train(data, tmp_path / "run")
    assert soundreel.load(model).class_names == ("cat", "dog")
    flags = ["--out", str(tmp_path / "clips"), "--count", "1"]
    assert run(["generate", str(model), *flags, "--class", "dog"]) == 0
    assert run(["demo", str(model), "--out", str(tmp_path / "page")]) == 0
    assert (tmp_path / "page" / "02-dog.mp4").is_file()
    assert run(["generate", str(model), *flags, "--overwrite", "--class", "cow"]) == 2
    assert "class 'cow' is none of this model's: cat, dog" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_without_classes_has_none_anywhere(data, tmp_path, capsys):
    model = train(data, tmp_path / "run", "--no-class-labels")
    pipe = soundreel.load(model)
    assert pipe.class_names == ()
    assert pipe.conditions == {"video", "audio"}
    assert run(["demo", str(model), "--out", str(tmp_path / "page")]) == 0
    assert (tmp_path / "page" / "01-clip-1.mp4").is_file()
    flags = ["--out", str(tmp_path / "clips"), "--count", "1"]
    assert run(["generate", str(model), *flags, "--class", "dog"]) == 2
    assert "this model has no classes" in capsys.readouterr().err
