"""From AudioSet's published lists to clips from captions, with a tiny text encoder."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import soundreel
from soundreel.app.workshop import Workshop
from soundreel.cli.main import run
from soundreel.clip import Clip

WORDS = {"/m/1": "dog", "/m/2": "fire", "/m/3": "sea"}
STEPS = {"first-stage": 1, "autoencoder": 8, "adversarial": 1, "generator": 1}
SHORT = ["--decoding.num-steps", "2", "--sampling.num-steps", "2", "--first-stage.no-adversary"]
FEW = [
    flag
    for stage, steps in STEPS.items()
    for flag in (f"--{stage}.train.total-samples", str(8 * steps))
]


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> Path:
    """A list of seven segments as published, its table of labels, and their videos."""
    folder, rng = tmp_path_factory.mktemp("audioset"), np.random.default_rng(0)
    rows = []
    for number in range(7):
        name = f"video-{number:05d}"
        rate = Fraction(5 if number == 6 else 10)
        frames = rng.integers(0, 256, (int(2 * rate), 36, 48, 3), dtype=np.uint8)
        sound = (0.3 * rng.standard_normal((1, 32_000))).clip(-1, 1).astype(np.float32)
        Clip(frames, sound, rate, 16_000).save(folder / f"{name}.mp4")
        rows.append(f'{name}, 0.000, 2.000, "/m/{1 + number % 3},/m/{1 + (number + 1) % 3}"\n')
    head = "# Segments csv\n# num_ytids=7\n# YTID, start_seconds, end_seconds, positive_labels\n"
    (folder / "balanced.csv").write_text(head + "".join(rows))
    table = "".join(f'{n},{mid},"{word}"\n' for n, (mid, word) in enumerate(WORDS.items()))
    (folder / "class_labels_indices.csv").write_text("index,mid,display_name\n" + table)
    return folder / "balanced.csv"


def train(*flags: str) -> None:
    """Train in a process of its own, without the checks of types that tests make."""
    command = [sys.executable, "-m", "soundreel", "train", "mm-ldm-tiny", "--all-stages"]
    done = subprocess.run(
        [*command, *FEW, *SHORT, *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_captions_go_from_audiosets_lists_to_clips_and_their_measures(
    listed, text_encoders, tmp_path, capsys
):
    data, out = tmp_path / "data", tmp_path / "run"
    sizes = ["--height", "32", "--width", "32", "--min-duration-s", "1", "--workers", "0"]
    assert run(["prepare", str(listed), str(data), "audioset", "--best", "6", *sizes]) == 0
    captions = (data / "captions.csv").read_text().splitlines()[1:]
    assert sorted({line.partition(",")[2] for line in captions}) == [
        '"dog, fire"',
        '"fire, sea"',
        '"sea, dog"',
    ]
    assert not any("video-00006" in line for line in captions), "the slowest one is not best"

    text = ["--text.folder", str(text_encoders / "clip"), "--text.num-tokens", "6"]
    train("--data", str(data), "--out", str(out), *text, "--generator.model.context-dim", "8")
    pipe = soundreel.load(out / "model")
    assert "text" in pipe.conditions
    assert pipe.class_names == ()

    make = ["generate", str(out / "model"), "--count", "1", "--lossless"]
    assert run([*make, "--out", str(tmp_path / "clips"), "--text", "dog, fire"]) == 0
    made = Clip.load(tmp_path / "clips" / "clip-0000.mkv")
    (alone,) = pipe.generate(text="dog, fire")
    assert np.array_equal(made.frames, alone.frames)
    facts = json.loads((tmp_path / "clips" / "clip-0000.json").read_text())
    assert facts["text"] == "dog, fire"

    shop = Workshop(pipe, tmp_path / "page")
    (tmp_path / "page").mkdir()
    assert '"sea"' in shop.generate("anna", text="sea").about

    report = ["evaluate", str(data), str(out / "model"), "--max-clips", "3", "--num-shown", "1"]
    report += ["--metrics", "kvd/efficientnet-lite0", "--duration-s", "0.8"]
    assert run([*report, "--out", str(tmp_path / "own.html")]) == 0
    names = _names(tmp_path / "own.json")
    assert {name.partition(", ")[2] for name in names} <= {"dog, fire", "fire, sea", "sea, dog"}
    (tmp_path / "list.txt").write_text("a dog\n\na sea\n")
    asked = [*report, "--prompts", str(tmp_path / "list.txt")]
    assert run([*asked, "--out", str(tmp_path / "list.html")]) == 0
    assert _names(tmp_path / "list.json") == {
        "sample-000000, a dog",
        "sample-000001, a sea",
        "sample-000002, a dog",
    }
    capsys.readouterr()


def _names(numbers: Path) -> set[str]:
    copies = json.loads(numbers.read_text())["copies"]
    return {neighbour["generated"] for neighbour in copies["sound"]["neighbours"]}
