"""The file of answers: turns, repeats, refusals, two servers at once."""

import re
import shlex
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest

from soundreel.errors import SoundreelError
from soundreel.study.results import compute_results
from soundreel.study.service import StudyService
from soundreel.study.store import RefusedError, Store, create_store

GOOD = {"vote": 2}


@pytest.fixture
def path(tmp_path):
    create_store(tmp_path / "answers.sqlite")
    return tmp_path / "answers.sqlite"


@pytest.fixture
def store(path):
    opened = Store(path)
    yield opened
    opened.close()


def begin(study, store):
    rater = store.find_rater(store.add_rater(study, now=100.0))
    return rater, store.current_trial(rater, now=100.0)


def test_a_rater_goes_on_where_they_stopped(make_study, store, path):
    study = make_study()
    token = store.add_rater(study, now=0.0)
    rater = store.find_rater(token)
    first = store.current_trial(rater, now=1.0)
    assert store.current_trial(rater, now=2.0) == first
    store.answer(study, rater, first.id, GOOD, 2, now=3.0)
    second = store.current_trial(rater, now=3.0)
    assert (first.position, second.position, second.total) == (0, 1, 43)
    store.close()
    later = Store(path)
    assert later.current_trial(later.find_rater(token), now=9.0) == second
    (answered,) = later.answered_trials()
    assert (answered.values, answered.num_plays, answered.elapsed_s) == (GOOD, 2, 2.0)
    later.close()


def test_a_repeated_answer_changes_nothing_and_another_is_refused(make_study, store):
    study = make_study()
    rater, shown = begin(study, store)
    store.answer(study, rater, shown.id, GOOD, 1, now=101.0)
    store.answer(study, rater, shown.id, GOOD, 1, now=102.0)
    with pytest.raises(RefusedError, match="answered already") as refused:
        store.answer(study, rater, shown.id, {"vote": 3}, 1, now=102.0)
    assert refused.value.status == 409
    assert [t.values for t in store.answered_trials()] == [GOOD]


def test_nobody_answers_for_another_or_out_of_turn(make_study, store):
    study = make_study()
    rater, shown = begin(study, store)
    other, _ = begin(study, store)
    for who, trial in ((other, shown.id), (rater, "no-such-trial")):
        with pytest.raises(RefusedError, match="answered already"):
            store.answer(study, who, trial, GOOD, 1, now=200.0)
    assert store.answered_trials() == []


def test_an_answer_before_the_clip_can_have_ended_is_refused(make_study, store):
    study = make_study()
    rater, shown = begin(study, store)
    with pytest.raises(RefusedError, match="watch the video"):
        store.answer(study, rater, shown.id, GOOD, 1, now=100.2)
    store.answer(study, rater, shown.id, GOOD, 1, now=100.4)


@pytest.mark.parametrize(
    "values", [{}, {"vote": 0}, {"vote": 4}, {"vote": True}, {"video": 1}, {"vote": 1, "video": 1}]
)
def test_answers_that_do_not_fit_leave_no_trace(values, make_study, store):
    study = make_study()
    rater, shown = begin(study, store)
    with pytest.raises(ValueError, match="vote"):
        store.answer(study, rater, shown.id, values, 1, now=200.0)
    assert store.answered_trials() == []
    assert store.current_trial(rater, now=200.0) == shown


def test_a_full_study_takes_nobody(make_study, store):
    study = make_study(max_raters=2)
    begin(study, store)
    begin(study, store)
    with pytest.raises(RefusedError, match="no more") as refused:
        begin(study, store)
    assert refused.value.status == 403


def test_an_unknown_token_is_refused_and_none_is_stored(make_study, store, path):
    token = store.add_rater(make_study(), now=0.0)
    with pytest.raises(RefusedError) as refused:
        store.find_rater(token[:-1])
    assert refused.value.status == 404
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert token.encode() not in stored


def test_the_file_is_in_write_ahead_mode_and_flushed_at_every_commit(store, path):
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_many_threads_and_two_servers_share_the_raters_evenly(make_study, path):
    study = make_study()
    stores = [Store(path), Store(path)]

    def join_in(store):
        for _ in range(5):
            begin(study, store)

    threads = [threading.Thread(target=join_in, args=(store,)) for store in stores * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(stores[0].progress()) == set(range(1, 41))
    seen = dict(
        stores[1]._db.execute(
            "SELECT clip, count(*) FROM trials WHERE test = 'mos' AND check_kind = '' GROUP BY clip"
        )
    )
    assert 7 <= min(seen.values()) <= max(seen.values()) <= 11
    for store in stores:
        store.close()


def test_another_file_is_no_store(tmp_path):
    with pytest.raises(ValueError, match="not there"):
        Store(tmp_path / "answers.sqlite")
    (tmp_path / "answers.sqlite").write_text("no database, but long enough to be looked at" * 9)
    with pytest.raises(ValueError, match="no store"):
        Store(tmp_path / "answers.sqlite")


ROOT = Path(__file__).resolve().parents[2]


def answer_some(study, store, num_raters=3, num_answers=2):
    """Raters, some of whose trials are answered."""
    tokens = [store.add_rater(study, now=0.0) for _ in range(num_raters)]
    for token in tokens:
        rater = store.find_rater(token)
        for k in range(num_answers):
            shown = store.current_trial(rater, now=10.0 * k)
            store.answer(study, rater, shown.id, GOOD, 1, now=10.0 * k + 5)
    return tokens


@pytest.mark.parametrize("rater", [1, 2, 3])
def test_a_rater_withdrawn_as_documented_blocks_nobody(rater, make_study, store, path):
    study = make_study(turing_trials=4)
    answer_some(study, store)
    text = (ROOT / "docs" / "study.md").read_text()
    command = re.search(r'sqlite3 answers\.sqlite "(DELETE[^"]*)"', text)[1]
    with sqlite3.connect(path) as other:  # while the study is open
        other.executescript(command.replace("7", str(rater)))
    other.close()
    assert len(store.progress()) == 2
    assert {t.rater for t in store.answered_trials()} == {1, 2, 3} - {rater}
    for _ in range(2):
        new = store.find_rater(store.add_rater(study, now=0.0))
        assert store.current_trial(new, now=1.0).position == 0
    assert len(store.progress()) == 4


def test_rows_deleted_otherwise_block_nobody_either(make_study, store, path):
    study = make_study(turing_trials=4)
    answer_some(study, store)
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM raters WHERE id = 3")  # its trials are left over
        other.execute("DELETE FROM answers WHERE trial IN (SELECT id FROM trials WHERE rater = 2)")
    other.close()
    assert {t.rater for t in store.answered_trials()} == {1, 3}
    new = store.find_rater(store.add_rater(study, now=0.0))
    assert new == 4


def test_damage_is_one_line_and_never_another_error(make_study, path, tmp_path):
    study = make_study(turing_trials=4)
    store = Store(path)
    answer_some(study, store)
    store.close()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for number in range(80):
        content = bytearray(whole)
        if number % 4 == 0:
            content = content[: rng.integers(1, len(content))]
        for at in rng.integers(len(content), size=1 + 20 * (number % 3)):
            content[at] = rng.integers(256)
        damaged = tmp_path / f"{number}.sqlite"
        damaged.write_bytes(content)
        try:
            opened = Store(damaged)
        except SoundreelError as error:
            messages.append(str(error))
            continue
        compute_results(study, opened.answered_trials(), opened.progress(), num_resamples=100)
        opened.close()
    assert len(messages) > 30
    assert all(str(tmp_path) in text and "\n" not in text for text in messages)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trials SET test = 'mqs'",
        "UPDATE trials SET clip = x'ff'",
        "UPDATE trials SET num_plays = 'often'",
        "UPDATE answers SET value = 9",
        "UPDATE answers SET question = 'vite'",
        "UPDATE raters SET consented_at = 'today'",
        "UPDATE answers SET value = value % 5 + 1 WHERE trial IN (SELECT max(trial) FROM answers)",
        "UPDATE trials SET answered_at = answered_at + 1 WHERE answered_at = 5.0",
        "UPDATE raters SET consented_at = 1.0 WHERE id = 2",
        "DROP TABLE answers",
    ],
)
def test_values_that_nobody_gave_are_damage(change, make_study, path):
    store = Store(path)
    answer_some(make_study(turing_trials=4), store)
    store.close()
    with sqlite3.connect(path) as other:
        other.execute(change)
    other.close()
    with pytest.raises(SoundreelError, match="is damaged"):
        Store(path)


def test_answers_of_older_releases_are_kept_and_gone_on_with(make_study, path):
    """Their rows have no checksums; new ones have."""
    study = make_study(turing_trials=4)
    store = Store(path)
    answer_some(study, store)
    before = store.answered_trials()
    store.close()
    with sqlite3.connect(path) as other:
        for table in ("raters", "trials", "answers"):
            other.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
    other.close()
    store = Store(path)
    assert store.answered_trials() == before
    answer_some(study, store, num_raters=1)
    assert len(store.answered_trials()) == len(before) + 2
    store.close()
    Store(path).close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE answers SET value = value % 5 + 1 WHERE checksum IS NOT NULL")
    other.close()
    with pytest.raises(SoundreelError, match="a row of answers does not match its checksum"):
        Store(path)


def test_a_clip_that_was_changed_is_not_served(study_folder):
    clip = sorted((study_folder / "clips").iterdir())[0]
    clip.write_bytes(b"x" * 100)
    with pytest.raises(SoundreelError, match=f"{clip.name} was changed"):
        StudyService(study_folder)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs the program sqlite3")
def test_the_documented_commands_withdraw_a_rater_and_copy_the_answers(make_study, store, path):
    """As the page says, while the study runs: in its folder, with the study's file open."""
    study = make_study()
    for _ in range(8):
        rater, shown = begin(study, store)
        store.answer(study, rater, shown.id, GOOD, 1, now=101.0)
    text = (ROOT / "docs" / "study.md").read_text()
    commands = re.findall(r'sqlite3 answers\.sqlite ".*?"(?=`|\n)', text, re.DOTALL)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(shlex.split(command), cwd=path.parent, check=True, timeout=60)
    assert store.progress().keys() == {1, 2, 3, 4, 5, 6, 8}
    assert {trial.rater for trial in store.answered_trials()} == {1, 2, 3, 4, 5, 6, 8}
    rater, _ = begin(study, store)
    assert rater == 9
    copied = Store(path.with_name("copy.sqlite"))
    assert copied.progress().keys() == {1, 2, 3, 4, 5, 6, 8}
    copied.close()
