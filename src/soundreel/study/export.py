"""All answers as a table: one row for each, whether it counts or not."""

import csv
import io
from collections.abc import Sequence

from soundreel.study.assignment import AnsweredTrial, check_passed
from soundreel.study.design import Study
from soundreel.study.results import excluded_raters

COLUMNS = (
    "rater",
    "position",
    "test",
    "system",
    "clip",
    "question",
    "answer",
    "elapsed_s",
    "num_plays",
    "check",
    "check_passed",
    "left_out",
)


def answers_csv(study: Study, trials: Sequence[AnsweredTrial]) -> str:
    """Write comma-separated values, first line `COLUMNS`.

    `check` names the kind of attention check and is empty for ordinary answers; `left_out` says why
    the rater does not count, and is empty if they do.
    """
    clips = {clip.id: clip for clip in study.clips}
    excluded = excluded_raters(study, trials)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for answered in trials:
        trial = answered.trial
        passed = ""
        if trial.check:
            is_passed = check_passed(trial.check, trial.expected, answered.values)
            passed = "yes" if is_passed else "no"
        for question, value in answered.values.items():
            writer.writerow(
                (
                    answered.rater,
                    answered.position + 1,
                    trial.test,
                    clips[trial.clip].system,
                    clips[trial.clip].name,
                    question,
                    value,
                    f"{answered.elapsed_s:.1f}",
                    answered.num_plays,
                    trial.check,
                    passed,
                    excluded.get(answered.rater, ""),
                )
            )
    return text.getvalue()
