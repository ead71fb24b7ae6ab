"""Print what a study holds, and its results."""

import math
from fractions import Fraction
from pathlib import Path

from soundreel.cli.main import write
from soundreel.study.bootstrap import Estimate
from soundreel.study.design import Study
from soundreel.study.results import Attendance, Scores, StudyResults
from soundreel.study.sources import LeftOut


def print_results(made: Study, results: StudyResults) -> None:
    """Write who counts, then a block for each question."""
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


def print_created(folder: Path, made: Study, left_out: list[LeftOut]) -> None:
    """Write what a new study holds, and what was left out of it."""
    for item in left_out:
        write(f"left out: {item.system}: {item.name} {item.reason}", error=True)
    counts = ", ".join(f"{system} {count}" for system, count in made.num_clips().items())
    trials = ", ".join(f"{test} {made.num_trials(test)}" for test in made.tests)
    rate = float(Fraction(made.frame_rate))
    write(f"clips: {counts}; left out: {len(left_out)}")
    write(
        f"every clip: {made.duration_s:.2f} s, {made.height}x{made.width} at {rate:g} frames/s, "
        f"{made.sample_rate} Hz"
    )
    write(f"clips each rater sees: {trials}, and attention checks")
    write(f"study: {folder}; next: soundreel study serve {folder}")
