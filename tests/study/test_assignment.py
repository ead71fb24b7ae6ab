"""Who sees which clips: balanced, random, repeatable."""

from collections import Counter

import pytest

from soundreel.study.assignment import INSTRUCTED, NOISE, assign_trials, check_passed


def assign_many(study, num_raters):
    seen = Counter()
    everyone = []
    for rater in range(1, num_raters + 1):
        trials = assign_trials(study, rater, seen)
        seen += Counter((t.test, t.clip) for t in trials if not t.check)
        everyone.append(trials)
    return everyone, seen


def test_every_system_and_every_clip_gets_its_share(make_study):
    study = make_study(mos_trials=20, turing_trials=20)
    everyone, seen = assign_many(study, 40)
    system_of = {clip.id: clip.system for clip in study.clips}
    for trials in everyone:
        for test in study.tests:
            shares = Counter(system_of[t.clip] for t in trials if t.test == test and t.check == "")
            assert sum(shares.values()) == 20
            assert max(shares.values()) - min(shares.values()) <= 1
    # 40 raters of 20 clips over 90 clips: 8.9 each.
    for test in study.tests:
        times = [seen[test, clip.id] for clip in study.clips if clip.system]
        assert 7 <= min(times) <= max(times) <= 11


def test_nobody_meets_a_clip_twice_where_there_are_enough(make_study):
    everyone, _ = assign_many(make_study(), 40)
    for trials in everyone:
        shown = [t.clip for t in trials]
        assert len(set(shown)) == len(shown)


def test_few_clips_are_all_shown_once_in_each_test(make_study):
    study = make_study(num_clips=2, mos_trials=50, turing_trials=50)
    (trials,), _ = assign_many(study, 1)
    for test in study.tests:
        shown = [t.clip for t in trials if t.test == test and not t.check]
        assert len(shown) == len(set(shown)) == 6


def test_the_order_is_random_but_repeats_with_the_seed(make_study):
    everyone, _ = assign_many(make_study(), 3)
    again, _ = assign_many(make_study(), 3)
    other, _ = assign_many(make_study(seed=1), 3)
    assert everyone == again
    assert everyone != other
    assert everyone[0] != everyone[1]
    # The system of the first clip says nothing about the rater.
    firsts = Counter(trials[0].clip[0] for trials in assign_many(make_study(), 300)[0])
    assert all(70 <= firsts[letter] <= 130 for letter in "zyr")


def test_checks_are_there_and_never_first(make_study):
    study = make_study(instructed_checks=2)
    everyone, _ = assign_many(study, 30)
    for trials in everyone:
        assert [t.test for t in trials] == ["turing"] * 22 + ["mos"] * 23
        kinds = Counter((t.test, t.check) for t in trials if t.check)
        assert kinds == {("turing", INSTRUCTED): 2, ("mos", INSTRUCTED): 2, ("mos", NOISE): 1}
        assert trials[0].check == trials[22].check == ""
        assert all(
            1 <= t.expected <= 3 for t in trials if (t.test, t.check) == ("turing", INSTRUCTED)
        )
    assert {t.expected for trials in everyone for t in trials if t.check == INSTRUCTED} == {
        1,
        2,
        3,
        4,
        5,
    }


@pytest.mark.parametrize(
    ("check", "values", "is_passed"),
    [
        (NOISE, {"video": 1, "audio": 2, "alignment": 5}, True),
        (NOISE, {"video": 3, "audio": 1, "alignment": 1}, False),
        (NOISE, {"video": 1, "audio": 3, "alignment": 1}, False),
        (INSTRUCTED, {"video": 4, "audio": 4, "alignment": 4}, True),
        (INSTRUCTED, {"video": 4, "audio": 4, "alignment": 3}, False),
        (INSTRUCTED, {"vote": 4}, True),
        (INSTRUCTED, {"vote": 2}, False),
    ],
)
def test_what_passes_a_check(check, values, is_passed):
    assert check_passed(check, 4, values) is is_passed
