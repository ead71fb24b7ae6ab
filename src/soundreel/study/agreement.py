"""Agreement of raters: Krippendorff's alpha.

Written here because the library for it is under the GPL.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

Level = Literal["nominal", "ordinal", "interval"]


def krippendorff_alpha(
    values: Int[np.ndarray, " rating"], units: Int[np.ndarray, " rating"], level: Level = "ordinal"
) -> float:
    """Compute alpha: 1 is full agreement, 0 chance; NaN if no ratings differ, or no unit has two.

    Args:
        values: ratings on a scale of integers.
        units: what each rating is about. A unit with one rating tells nothing and is left out; any
            number of ratings may be missing.
        level: `"ordinal"` for scales whose steps need not be equal.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section D: observed and
    expected coincidences, and the difference functions.
    """
    scale, value_index = np.unique(values, return_inverse=True)
    num_units = len(np.unique(units))
    unit_index = np.unique(units, return_inverse=True)[1]
    counts = np.zeros((num_units, len(scale)))
    np.add.at(counts, (unit_index, value_index), 1)
    counts = counts[counts.sum(axis=1) >= 2]
    if len(counts) == 0:
        return float("nan")
    pairs = np.einsum("ui,uj->uij", counts, counts)
    pairs[:, np.arange(len(scale)), np.arange(len(scale))] -= counts  # nothing pairs with itself
    observed = (pairs / (counts.sum(axis=1) - 1)[:, None, None]).sum(axis=0)
    totals = observed.sum(axis=1)
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    difference = _squared_difference(scale, totals, level)
    disagreement = float((expected * difference).sum())
    if disagreement == 0:
        return float("nan")
    return 1 - float((observed * difference).sum()) / disagreement


def _squared_difference(
    scale: Int[np.ndarray, " value"], totals: Float[np.ndarray, " value"], level: Level
) -> Float[np.ndarray, "value value"]:
    if level == "nominal":
        return 1 - np.eye(len(scale))
    if level == "interval":
        return (scale[:, None] - scale[None, :]).astype(float) ** 2
    # Ordinal: how many ratings lie between two values, each end counted half.
    middle = np.cumsum(totals) - totals / 2
    return (middle[:, None] - middle[None, :]) ** 2
