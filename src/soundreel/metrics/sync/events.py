"""Detected against true events: precision, recall and timing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class EventMatch:
    """Detected against true event times.

    Attributes:
        precision, recall, f1: 0 to 1; precision is 1 where nothing was detected, recall where there
            was nothing to detect.
        mean_absolute_error_s: of matched pairs; nan without any.
        bias_s: mean signed error of matched pairs (positive: detected late).
        num_matched: pairs.
    """

    precision: float
    recall: float
    f1: float
    mean_absolute_error_s: float
    bias_s: float
    num_matched: int


def match_events(
    true_s: Sequence[float], detected_s: Sequence[float], tolerance_s: float = 0.1
) -> EventMatch:
    """Pair true and detected times one to one within a tolerance, as many pairs as possible.

    Times are walked in order: on a line this greedy pairing is a largest one.

    Raises:
        ValueError: a tolerance that is not positive.
    """
    if tolerance_s <= 0:
        raise ValueError(f"tolerance_s must be positive, got {tolerance_s}")
    truth, found = sorted(true_s), sorted(detected_s)
    errors: list[float] = []
    i = j = 0
    while i < len(truth) and j < len(found):
        error = found[j] - truth[i]
        if abs(error) <= tolerance_s:
            errors.append(error)
            i, j = i + 1, j + 1
        elif error < 0:
            j += 1
        else:
            i += 1
    precision = len(errors) / len(found) if found else 1.0
    recall = len(errors) / len(truth) if truth else 1.0
    total = precision + recall
    return EventMatch(
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / total if total else 0.0,
        mean_absolute_error_s=float(np.mean(np.abs(errors))) if errors else float("nan"),
        bias_s=float(np.mean(errors)) if errors else float("nan"),
        num_matched=len(errors),
    )
