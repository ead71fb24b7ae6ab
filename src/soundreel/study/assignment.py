"""Assign clips to raters, in random, balanced order, repeatable from the seed."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from soundreel.study.design import Study, StudyClip
from soundreel.study.protocol import QUESTIONS, Test

NOISE, INSTRUCTED = "noise", "instructed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One clip shown to one rater in one test.

    Attributes:
        clip: its id.
        check: "", `NOISE` or `INSTRUCTED`; answers to checks are not part of the results.
        expected: the answer an instructed check asks for; 0 otherwise.
    """

    test: Test
    clip: str
    check: str = ""
    expected: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredTrial:
    """An answered trial, as the results need it.

    Attributes:
        values: by key of the question.
        elapsed_s: from when the trial was first shown to its answer.
    """

    rater: int
    position: int
    trial: Trial
    values: dict[str, int]
    elapsed_s: float
    num_plays: int


def assign_trials(study: Study, rater: int, seen: Mapping[tuple[Test, str], int]) -> list[Trial]:
    """Draw the trials of a rater, in order.

    Every system gets the same share of a rater's clips (to one clip), and of its clips those that
    fewest raters have seen. A rater meets a clip once in each test, and only once in all where
    there are enough clips. Checks come at random places, never first.

    Args:
        rater: number of the rater; with `study.seed` it fixes every random choice.
        seen: by test and clip id, to how many raters a clip has been assigned.
    """
    rng = random.Random(f"{study.seed}/{rater}")
    trials: list[Trial] = []
    for test in study.tests:
        met = {trial.clip for trial in trials}
        chosen = _choose(study, test, seen, met, rng)
        rng.shuffle(chosen)
        part = [Trial(test=test, clip=clip.id) for clip in chosen]
        met |= {clip.id for clip in chosen}
        for check in _checks(study, test, met, rng):
            part.insert(rng.randint(1, len(part)), check)
        trials += part
    return trials


def _choose(
    study: Study,
    test: Test,
    seen: Mapping[tuple[Test, str], int],
    met: set[str],
    rng: random.Random,
) -> list[StudyClip]:
    """Take round by round a clip of each system, until the rater has enough."""
    queues = []
    for system in study.systems:
        queue = [clip for clip in study.clips if clip.system == system]
        rng.shuffle(queue)
        # The sort is stable, so clips seen equally often stay in random order.
        queue.sort(key=lambda clip: (clip.id in met, seen.get((test, clip.id), 0)))
        queues.append(queue)
    rng.shuffle(queues)  # who gets one more where the number does not divide
    rounds = [queue[k] for k in range(max(map(len, queues))) for queue in queues if k < len(queue)]
    return rounds[: study.num_trials(test)]


def _checks(study: Study, test: Test, met: set[str], rng: random.Random) -> list[Trial]:
    choices = min(len(question.descriptions) for question in QUESTIONS[test])
    ordinary = [clip for clip in study.clips if clip.system]
    spare = [clip for clip in ordinary if clip.id not in met] or ordinary
    checks = [
        Trial(
            test=test,
            clip=rng.choice(spare).id,
            check=INSTRUCTED,
            expected=rng.randint(1, choices),
        )
        for _ in range(study.instructed_checks)
    ]
    if test == "mos":
        checks += [Trial(test=test, clip=clip.id, check=NOISE) for clip in study.noise]
    return checks


def check_passed(check: str, expected: int, values: Mapping[str, int]) -> bool:
    """Tell whether an attention check was answered as an attentive rater would.

    Noise is "pure noise" on the scale of the protocol; 2 is let pass too, for some see figures.
    """
    if check == NOISE:
        return values["video"] <= 2 and values["audio"] <= 2
    return all(value == expected for value in values.values())
