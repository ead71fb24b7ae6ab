"""Results of a study: who counts, opinion scores, pass rates, agreement."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from soundreel.study.agreement import krippendorff_alpha
from soundreel.study.assignment import AnsweredTrial, check_passed
from soundreel.study.bootstrap import Estimate, Ratings, estimate_means
from soundreel.study.design import Study
from soundreel.study.protocol import PASSING_VOTES, QUESTIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Attendance:
    """Numbers of raters, and of those who count.

    Attributes:
        started: gave consent. finished: answered every trial.
        failed: left out, having failed more attention checks than the study allows.
        unchecked: left out, having stopped before the first attention check.
        counted: whose answers are in the results, finished or not.
    """

    started: int
    finished: int
    failed: int
    unchecked: int
    counted: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """One question's results.

    Attributes:
        key: of the question, or `pass_rate` for the Turing test.
        means: by system: the mean opinion score, or the share of votes that pass.
        differences: first system minus second.
        counts: by system, how often each answer was given, from 1 on.
        alpha: Krippendorff's, ordinal, over the clips of all systems; NaN if it cannot be told.
    """

    key: str
    means: dict[str, Estimate]
    differences: dict[tuple[str, str], Estimate]
    counts: dict[str, tuple[int, ...]]
    alpha: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyResults:
    attendance: Attendance
    scores: tuple[Scores, ...]


def excluded_raters(study: Study, trials: Sequence[AnsweredTrial]) -> dict[int, str]:
    """Find the raters who do not count: `failed` or `unchecked`, as `Attendance` says."""
    checks: dict[int, list[bool]] = {answered.rater: [] for answered in trials}
    for answered in trials:
        trial = answered.trial
        if trial.check:
            passed = check_passed(trial.check, trial.expected, answered.values)
            checks[answered.rater].append(passed)
    has_checks = study.instructed_checks > 0 or ("mos" in study.tests and study.noise_checks > 0)
    reasons = {}
    for rater, passed in checks.items():
        if passed.count(False) > study.allowed_failures:
            reasons[rater] = "failed"
        elif has_checks and not passed:
            reasons[rater] = "unchecked"
    return reasons


def compute_results(
    study: Study,
    trials: Sequence[AnsweredTrial],
    progress: dict[int, tuple[int, int]],
    seed: int = 0,
    num_resamples: int = 2000,
) -> StudyResults:
    """Compute results from everything that was answered so far.

    Args:
        trials, progress: from `Store.answered_trials` and `Store.progress`.
        seed: of the bootstrap intervals.
    """
    excluded = excluded_raters(study, trials)
    # Who was only shown a trial has no answers that could count.
    without = [rater for rater, (answered, _) in progress.items() if answered == 0]
    reasons = list(excluded.values())
    attendance = Attendance(
        started=len(progress),
        finished=sum(answered == total for answered, total in progress.values()),
        failed=reasons.count("failed"),
        unchecked=reasons.count("unchecked") + len(without),
        counted=len(progress) - len(excluded) - len(without),
    )
    kept = [t for t in trials if t.rater not in excluded and not t.trial.check]
    scores = []
    for test in study.tests:
        answered = [t for t in kept if t.trial.test == test]
        for question in QUESTIONS[test]:
            rng = np.random.default_rng([seed, len(scores)])
            if answered:
                num_choices = len(question.descriptions)
                scores.append(
                    _scores(study, question.key, num_choices, answered, rng, num_resamples)
                )
    return StudyResults(attendance=attendance, scores=tuple(scores))


def _scores(
    study: Study,
    key: str,
    num_choices: int,
    answered: Sequence[AnsweredTrial],
    rng: np.random.Generator,
    num_resamples: int,
) -> Scores:
    system_of = {clip.id: clip.system for clip in study.clips}
    by_system = {s: [t for t in answered if system_of[t.trial.clip] == s] for s in study.systems}
    by_system = {s: found for s, found in by_system.items() if found}
    raters = {rater: k for k, rater in enumerate(sorted({t.rater for t in answered}))}
    is_vote = key == "vote"
    ratings = {s: _ratings(found, key, raters, is_vote) for s, found in by_system.items()}
    estimates = estimate_means(ratings, rng, num_resamples)
    clips = {clip: k for k, clip in enumerate(sorted({t.trial.clip for t in answered}))}
    return Scores(
        key="pass_rate" if is_vote else key,
        means=estimates.means,
        differences=estimates.differences,
        counts={
            s: tuple(sum(t.values[key] == k + 1 for t in found) for k in range(num_choices))
            for s, found in by_system.items()
        },
        alpha=krippendorff_alpha(
            np.array([t.values[key] for t in answered]),
            np.array([clips[t.trial.clip] for t in answered]),
        ),
    )


def _ratings(
    answered: Sequence[AnsweredTrial], key: str, raters: dict[int, int], is_vote: bool
) -> Ratings:
    """Collect those of one system; votes become 1 where they pass and 0 where not."""
    clips = {clip: k for k, clip in enumerate(sorted({t.trial.clip for t in answered}))}
    matrix = np.full((len(raters), len(clips)), np.nan)
    for t in answered:
        value = t.values[key]
        matrix[raters[t.rater], clips[t.trial.clip]] = value in PASSING_VOTES if is_vote else value
    return matrix
