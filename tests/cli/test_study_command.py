"""`soundreel study` from folders to numbers."""

import csv
import json
from fractions import Fraction

import numpy as np
import pytest

from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.study.design import ANSWER_FILE, load_study
from soundreel.study.protocol import QUESTIONS
from soundreel.study.store import Store


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two systems with two clips of 0.4 s each."""
    root = tmp_path_factory.mktemp("systems")
    for system in ("one", "two"):
        (root / system).mkdir()
        for index in range(2):
            frames = np.full((4, 32, 32, 3), 50 + 60 * index, np.uint8)
            sound = np.full((1, 3200), 0.1, np.float32)
            clip = Clip(frames, sound, Fraction(10), 8_000)
            clip.save(root / system / f"{index}.mkv")
    (root / "empty").mkdir()
    (root / "model").mkdir()
    (root / "model" / "model_index.json").write_text("{}")
    (root / "latin.txt").write_bytes(b"\xe9")
    return root


def create(folders, folder, *more):
    arguments = ["study", "create", str(folder), "--system", f"one={folders / 'one'}"]
    arguments += ["--system", f"two={folders / 'two'}", "--min-duration-s", "0.2"]
    return run([*arguments, *(word.replace("ROOT", str(folders)) for word in more)])


def test_a_study_from_its_making_to_its_numbers(folders, tmp_path, capsys):
    folder = tmp_path / "study"
    assert create(folders, folder) == 0
    made = capsys.readouterr()
    assert "clips: one 2, two 2; left out: 0" in made.out
    assert made.err == ""
    study = load_study(folder)
    store = Store(folder / ANSWER_FILE)
    for rater in (1, 2):
        store.add_rater(study, 0.0)
        now = 0.0
        while (shown := store.current_trial(rater, now)) is not None:
            now += 2.0
            trial = shown.trial
            value = trial.expected or (1 if trial.check else 2)
            values = {question.key: value for question in QUESTIONS[trial.test]}
            store.answer(study, rater, shown.id, values, 1, now)
    store.close()
    table = tmp_path / "answers.csv"
    assert run(["study", "results", str(folder), "--csv", str(table)]) == 0
    shown = capsys.readouterr().out
    assert "raters: 2 started, 2 finished, 2 counted" in shown
    assert "  one          2.00  (2.00 to 2.00)  answers 1 to 5: 0 4 0 0 0" in shown
    assert "100.0 %  (100.0 to 100.0)  answers 1 to 3: 0 4 0" in shown
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * ((4 + 1) + 3 * (4 + 2))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--system", "one=x"], "--system one: that name is taken"),
        (["--system", "real=x"], "--system real: that name is taken"),
        (["--system", "three"], "NAME=FOLDER"),
        (["--system", "<b>=x"], "NAME=FOLDER"),
        (["--system", "three=nowhere"], "nowhere"),
        (["--real", "ROOT/empty"], "holds no video files"),
        (["--real", "ROOT/model"], "is a model; write its clips"),
        (["--duration-s", "9"], "lasts 0.40 s, 9 s are needed"),
        (["--duration-s", "nan"], "--duration-s must be positive"),
        (["--frame-rate", "fast"], "--frame-rate"),
        (["--size", "0", "64"], "--size must be positive"),
        (["--sample-rate", "0"], "--sample-rate must be positive"),
        (["--num-channels", "6"], "--num-channels is 1 or 2"),
        (["--clips-per-system", "0"], "--clips-per-system must be at least 1"),
        (["--mos-trials", "0"], "mos_trials must be at least 1"),
        (["--noise-checks", "-1"], "noise_checks must not be negative"),
        (["--tests", "mos", "mos"], "each of them once"),
        (["--title", " "], "must not be empty"),
        (["--consent", "ROOT/latin.txt"], "no text in UTF-8"),
        (["--consent", "ROOT/nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(more, message, folders, tmp_path, capsys):
    assert create(folders, tmp_path / "study", *more) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("soundreel: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_study_is_refused(tmp_path, capsys):
    for command in ("serve", "results"):
        assert run(["study", command, str(tmp_path)]) == 2
        assert "is no study" in capsys.readouterr().err
    assert run(["study", "create", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "study.json").write_text(json.dumps({"seed": 1}))
    assert run(["study", "results", str(tmp_path)]) == 2
    assert "study.json" in capsys.readouterr().err
