"""The results of a study, printed for people."""

import math

from soundreel.cli.main import write
from soundreel.study.bootstrap import Estimate
from soundreel.study.design import Study
from soundreel.study.results import Attendance, Scores, StudyResults


def print_results(made: Study, results: StudyResults) -> None:
    """Who counts, then a block for each question."""
    _print_attendance(made, results.attendance)
    for scores in results.scores:
        _print_scores(scores)


def _print_attendance(made: Study, people: Attendance) -> None:
    write(f"raters: {people.started} started, {people.finished} finished, {people.counted} counted")
    write(
        f"left out: {people.failed} failed more than {made.allowed_failures} attention checks, "
        f"{people.unchecked} stopped before the first"
    )


TITLES = {
    "pass_rate": "Turing test, share of votes that pass",
    "video": "MOS, video quality",
    "audio": "MOS, audio quality",
    "alignment": "MOS, video-audio alignment",
}


def _print_scores(scores: Scores) -> None:
    alpha = "cannot be told" if math.isnan(scores.alpha) else f"{scores.alpha:.2f}"
    write(f"\n{TITLES[scores.key]} (95 % intervals; agreement, Krippendorff's alpha: {alpha})")
    is_share = scores.key == "pass_rate"
    width = max(len(name) for name in (*scores.means, *map(_pair, scores.differences)))
    for system, estimate in scores.means.items():
        counts = " ".join(str(count) for count in scores.counts[system])
        write(
            f"  {system:<{width}}  {_text(estimate, is_share)}  "
            f"answers 1 to {len(scores.counts[system])}: {counts}"
        )
    for pair, estimate in scores.differences.items():
        write(f"  {_pair(pair):<{width}}  {_text(estimate, is_share)}")


def _pair(pair: tuple[str, str]) -> str:
    return f"{pair[0]} - {pair[1]}"


def _text(estimate: Estimate, is_share: bool) -> str:
    factor, digits, unit = (100, 1, " %") if is_share else (1, 2, "")
    value, low, high = (factor * x for x in (estimate.value, estimate.low, estimate.high))
    interval = "no interval" if math.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}"
    return f"{value:6.{digits}f}{unit}  ({interval})"
