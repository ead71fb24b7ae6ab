"""Simulated raters of known bias: the numbers that come out are the numbers that went in."""

import csv
import io
from collections import Counter

import numpy as np
import pytest

from soundreel.study.assignment import INSTRUCTED, NOISE, AnsweredTrial, assign_trials
from soundreel.study.bootstrap import estimate_means
from soundreel.study.export import COLUMNS, answers_csv
from soundreel.study.protocol import QUESTIONS
from soundreel.study.results import compute_results, excluded_raters

SYSTEMS = ("ours", "theirs")
TRUTH = {
    "ours": {"video": 4, "audio": 3, "alignment": 4},
    "theirs": {"video": 2, "audio": 3, "alignment": 3},
}
NUM_RATERS = 40


class Raters:
    """Raters who take part one after the other, in memory; the store has tests of its own."""

    def __init__(self, study):
        self.study = study
        self.system_of = {clip.id: clip.system for clip in study.clips}
        self.seen = Counter()
        self.answered = []
        self.progress = {}

    def take_part(self, judge, num_trials=None):
        """One more, from the first trial on; `judge` gives the values."""
        rater = len(self.progress) + 1
        trials = assign_trials(self.study, rater, self.seen)
        self.seen += Counter((t.test, t.clip) for t in trials if not t.check)
        done = trials[:num_trials]
        self.progress[rater] = (len(done), len(trials))
        self.answered += [
            AnsweredTrial(
                rater=rater,
                position=position,
                trial=trial,
                values=judge(rater, self.system_of[trial.clip], trial),
                elapsed_s=3.0,
                num_plays=1,
            )
            for position, trial in enumerate(done)
        ]

    def results(self):
        return compute_results(self.study, self.answered, self.progress)

    def scores(self):
        return {scores.key: scores for scores in self.results().scores}


def attentive(judge):
    """A rater who does what attention checks ask for, and judges the rest."""

    def judged(rater, system, trial):
        keys = [question.key for question in QUESTIONS[trial.test]]
        if trial.check == INSTRUCTED:
            return dict.fromkeys(keys, trial.expected)
        if trial.check == NOISE:
            return dict.fromkeys(keys, 1)
        return judge(rater, system, trial)

    return judged


def biased(rater, system, trial):
    """Every fourth rater is one point strict, every fourth one point kind; one in four believes
    in `ours` never, and in `theirs` always."""
    if trial.test == "turing":
        believes = (rater % 4 == 0) == (system == "theirs")
        return {"vote": (2 if rater % 8 < 4 else 3) if believes else 1}
    bias = {0: -1, 1: 1}.get(rater % 4, 0)
    return {key: value + bias for key, value in TRUTH[system].items()}


def careless(rater, system, trial):
    return {question.key: len(question.descriptions) for question in QUESTIONS[trial.test]}


def test_forty_biased_raters_give_the_known_scores_and_pass_rates(make_study):
    raters = Raters(make_study(systems=SYSTEMS))
    for _ in range(NUM_RATERS):
        raters.take_part(attentive(biased))
    scores = raters.scores()
    for key in ("video", "audio", "alignment"):
        for system in SYSTEMS:
            estimate = scores[key].means[system]
            assert estimate.value == pytest.approx(TRUTH[system][key])
            assert estimate.low < TRUTH[system][key] < estimate.high
            assert sum(scores[key].counts[system]) == NUM_RATERS * 10
    # Half of the raters are biased by one point: standard error 0.71 / sqrt(40) = 0.11.
    video = scores["video"].means["ours"]
    assert 2 * 1.5 * 0.11 < video.high - video.low < 2 * 2.5 * 0.11
    # A bias is the same for both systems, so of their difference it leaves nothing.
    difference = scores["video"].differences["ours", "theirs"]
    assert difference.value == pytest.approx(2)
    assert difference.high - difference.low < 0.3
    passing = scores["pass_rate"]
    assert passing.means["ours"].value == pytest.approx(0.75)
    assert passing.means["theirs"].value == pytest.approx(0.25)
    assert passing.means["ours"].low < 0.75 < passing.means["ours"].high
    assert passing.differences["ours", "theirs"].value == pytest.approx(0.5)
    # Of the 30 who believe, those whose number leaves 1 to 3 by 8 say "cannot be determined".
    assert passing.counts["ours"] == (100, 150, 150)


def test_random_ratings_give_scores_near_the_truth(make_study):
    raters = Raters(make_study(systems=SYSTEMS))
    rng = np.random.default_rng(0)
    bias = rng.normal(0, 0.5, NUM_RATERS + 1)

    def noisy(rater, system, trial):
        if trial.test == "turing":
            return {"vote": int(rng.choice([1, 2, 3], p=[0.4, 0.25, 0.35]))}
        return {
            key: int(np.clip(round(value - 0.5 + bias[rater] + rng.normal(0, 0.7)), 1, 5))
            for key, value in TRUTH[system].items()
        }

    for _ in range(NUM_RATERS):
        raters.take_part(attentive(noisy))
    scores = raters.scores()
    assert scores["pass_rate"].means["ours"].value == pytest.approx(0.6, abs=0.06)
    audio = scores["audio"].means
    assert audio["ours"].low < 2.5 < audio["ours"].high
    equal = scores["audio"].differences["ours", "theirs"]
    assert equal.low < 0 < equal.high
    assert scores["video"].differences["ours", "theirs"].low > 1.5
    assert 0.3 < scores["video"].alpha < 0.8  # the systems differ, the raters too
    assert abs(scores["audio"].alpha) < 0.1  # nothing in the clips to agree on


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Normal ratings with effects of raters and clips, two thirds missing: 200 studies."""
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        ratings = 3 + rng.normal(0, 0.5, (40, 1)) + rng.normal(0, 0.5, (1, 20))
        ratings = ratings + rng.normal(0, 0.8, (40, 20))
        ratings[rng.uniform(size=ratings.shape) < 2 / 3] = np.nan
        estimate = estimate_means({"one": ratings}, rng, num_resamples=400).means["one"]
        hits += estimate.low < 3 < estimate.high
    assert 0.91 <= hits / 200 <= 1.0


def test_intervals_of_raters_alone_would_be_too_narrow():
    """The reason to resample clips too: all raters agree, the clips differ."""
    clips = np.random.default_rng(0).normal(3, 1, (1, 16))
    ratings = np.repeat(clips, 40, axis=0)
    estimate = estimate_means({"one": ratings}, np.random.default_rng(1)).means["one"]
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * clips.std() / 4, rel=0.15)


def test_inattentive_raters_are_left_out_and_counted(make_study):
    raters = Raters(make_study(systems=SYSTEMS))
    for _ in range(NUM_RATERS):
        raters.take_part(attentive(biased))
    before = raters.results()
    for _ in range(5):
        raters.take_part(careless)
    raters.take_part(careless, num_trials=1)  # stops before any check
    raters.take_part(careless, num_trials=0)
    after = raters.results()
    assert after.scores == before.scores
    people = after.attendance
    assert (people.started, people.finished, people.counted) == (47, 45, 40)
    assert (people.failed, people.unchecked) == (5, 2)
    reasons = excluded_raters(raters.study, raters.answered)
    assert reasons == dict.fromkeys(range(41, 46), "failed") | {46: "unchecked"}


def test_a_study_may_allow_failures_or_have_no_checks(make_study):
    lenient = Raters(make_study(systems=SYSTEMS, allowed_failures=3))
    lenient.take_part(careless)
    assert excluded_raters(lenient.study, lenient.answered) == {}
    without = Raters(make_study(systems=SYSTEMS, instructed_checks=0, tests=("turing",)))
    without.take_part(careless, num_trials=1)
    assert excluded_raters(without.study, without.answered) == {}


def test_few_raters_give_means_without_intervals(make_study):
    raters = Raters(make_study(systems=SYSTEMS))
    assert raters.results().scores == ()
    raters.take_part(attentive(biased))
    scores = raters.scores()
    assert scores["video"].means["ours"].value == 5
    assert np.isnan(scores["video"].means["ours"].low)
    assert np.isnan(scores["video"].alpha)


def test_results_repeat_with_the_seed(make_study):
    raters = Raters(make_study(systems=SYSTEMS))
    for _ in range(4):
        raters.take_part(attentive(biased))
    assert raters.results() == raters.results()


def test_the_table_holds_every_answer(make_study):
    raters = Raters(make_study(systems=SYSTEMS, mos_trials=4, turing_trials=4))
    raters.take_part(attentive(biased))
    raters.take_part(careless)
    rows = list(csv.DictReader(io.StringIO(answers_csv(raters.study, raters.answered))))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2 * ((4 + 1) + 3 * (4 + 2))
    first, second = ([row for row in rows if row["rater"] == rater] for rater in "12")
    assert {row["left_out"] for row in first} == {""}
    assert {row["left_out"] for row in second} == {"failed"}
    assert {row["check_passed"] for row in first if row["check"]} == {"yes"}
    ordinary = [row for row in first if not row["check"]]
    assert all(row["elapsed_s"] == "3.0" and row["num_plays"] == "1" for row in ordinary)
    ours = [row for row in ordinary if (row["system"], row["question"]) == ("ours", "video")]
    assert {row["answer"] for row in ours} == {"5"}
