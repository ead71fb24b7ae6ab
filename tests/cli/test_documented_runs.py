"""The pages' commands, each run on small files in a folder of its own.

Numbers that take minutes are made smaller. What cannot be run here is in `ELSEWHERE` with the
test that runs the like of it; all are parsed by `tests/test_documented_commands.py`.
"""

import re
import shlex
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from soundreel.checkpoints.store import load_model_index, save_component, save_model_index
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"^ *soundreel ((?:.*\\\n)*.*)", re.MULTILINE)
ELSEWHERE = {
    "train ": "hours at these sizes: tests/e2e, tests/systems and tests/training",
    "demo ": "the README, in order: tests/e2e/test_readme.py",
    "import ": "published weights: tests/e2e/test_official_paths.py",
    "export ": "published forms of networks: tests/e2e/test_official_paths.py",
    "adapter": "an adapter of a training: tests/checkpoints/test_lora.py",
    "--text": "a model that reads captions: tests/systems/mm_ldm/test_conditions.py",
    "--between": "a model of joint_flow: tests/systems/joint_flow",
    "--class metronome": "a model for long films with classes: tests/systems/mm_ldm",
    "--class fire": "a trained model of these classes: tests/e2e/test_own_videos.py",
    "--weights": "official weights of the metrics: tests/metrics/test_extractors.py",
    "evaluate data": "a model that is sampled: tests/e2e/test_extending.py",
    "study serve": "runs until it is stopped: tests/study/test_page.py",
    "study results": "answers of people: tests/study/test_results.py",
    "app ": "runs until it is stopped: tests/app, tests/cli/test_app_command.py",
    "join ": "parts of one data set: tests/data/test_prepare_command.py",
    "runs/first": "the quick start's, in order: tests/e2e/test_readme.py",
    "examples/clips": "the quick start's, in order: tests/e2e/test_readme.py",
    "out/first": "the quick start's, in order: tests/e2e/test_readme.py",
    "run/model": "of the page on extending or of joint_flow: tests/e2e/test_extending.py",
}
SMALLER = (
    (r"~/", ""),
    (r"--count \d+", "--count 2"),
    (r"--test \S+", "--test 1"),
    (r"--valid \d+", ""),
    (r"--(height|width|size) \d+", r"--\1 32"),
    (r"--duration \d+", "--duration 3"),
    (r"--start 3 --duration 3", "--start 1 --duration 1"),
    (r"num-steps \d+", "num-steps 2"),
    (r"[\[\]]|\.\.\.", ""),
)


def documented() -> list[str]:
    """Return every command of the pages' blocks that is run here, made smaller, once."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [
        " ".join(shlex.split(words.replace("\\\n", " "), comments=True))
        for page in pages
        for words in COMMAND.findall(page.read_text())
    ]
    here = (smaller(line) for line in found if not any(part in f"{line} " for part in ELSEWHERE))
    return list(dict.fromkeys(here))


def smaller(line: str) -> str:
    for pattern, replacement in SMALLER:
        line = re.sub(pattern, replacement, line)
    if line.startswith("generate"):
        line += " --num-steps 1"
    if line.startswith("prepare"):
        line += " --workers 1 --min-duration-s 1"
    if line.startswith("study"):
        line += " --mos-trials 2 --turing-trials 2 --min-duration-s 1"
    return line


@pytest.fixture(scope="module")
def things(tmp_path_factory, small_run, small_dataset) -> dict[str, Path]:
    """What the pages' placeholders and example names stand for."""
    root = tmp_path_factory.mktemp("things")
    rng = np.random.default_rng(0)
    for index in range(10):
        frames = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        sound = (0.3 * rng.standard_normal((1, 32_000))).clip(-1, 1).astype(np.float32)
        path = root / "videos" / ("cat", "dog")[index % 2] / f"{index}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        Clip(frames, sound, Fraction(10), 16_000).save(path)
    Clip(None, sound, sample_rate=16_000).save(root / "sound.wav")
    config = SuperResolutionConfig(
        low_res_size=16, size=32, width=16, channel_mult=(1, 1), num_res_blocks=1,
        attention_factors=(), num_groups=8, num_heads=1,
    )  # fmt: skip
    model = Path(shutil.copytree(small_run / "model", root / "model"))
    save_component(model, "super_resolution", SuperResolutionUNet(config), config)
    index = load_model_index(model)
    parts = index.components | {"super_resolution": "super-resolution"}
    save_model_index(model, replace(index, components=parts))
    return {
        "video": root / "videos" / "cat" / "0.mp4",
        "sound": root / "sound.wav",
        "videos": root / "videos",
        "model": model,
        "data": small_dataset,
    }


def made_by(words: list[str]) -> str:
    """Return the word of a command that names what it makes; "" where it makes nothing."""
    if "--out" in words:
        return words[words.index("--out") + 1]
    places = {"prepare": 2, "render": 1, "pack": 2, "export": 2, "study": 2}
    return words[places[words[0]]] if words[0] in places else ""


def kind_of(words: list[str], index: int) -> str | None:
    """Return which of the things a word of a command names, None if it names none."""
    word, before = words[index].partition("=")[2] or words[index], words[index - 1]
    if word.endswith("model") or word.startswith("models/"):
        return "model"
    if word.endswith(".mp4") or word == "FILE":
        return "video"
    if word.endswith(".wav"):
        return "sound"
    if words[0] == "info":
        return "data"
    is_source = words[0] == "prepare" and index == 1
    is_set = before == "--train" or word in ("REF", "GEN") or "=" in words[index]
    return "videos" if is_source or is_set or before == "--real" else None


@pytest.mark.slow
@pytest.mark.parametrize("line", documented())
def test_the_command_works(line, things, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)
    target = made_by(words)
    for index, word in enumerate(words):
        path = Path(word.partition("=")[2] or word)
        kind = None if word == target or index == 0 else kind_of(words, index)
        if kind is not None and not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(things[kind])
    assert run(words) == 0
    assert not target or Path(target).exists()


def test_what_runs_elsewhere_is_still_on_the_pages():
    text = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert [part for part in ELSEWHERE if part not in text] == []
    assert len(documented()) > 20
