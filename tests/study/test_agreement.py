"""Krippendorff's alpha on examples with published values."""

import numpy as np
import pytest

from soundreel.study.agreement import krippendorff_alpha

# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), the data of sections C and D:
# four observers, twelve units, 7 of 48 values missing (0 here).
FOUR_OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)


def alpha(table, level):
    values = np.asarray(table)
    units = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return krippendorff_alpha(values[values > 0], units[values > 0], level)


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_textbook_example_with_missing_data(level, published):
    assert alpha(FOUR_OBSERVERS, level) == pytest.approx(published, abs=5e-4)


def test_the_binary_textbook_example():
    # The same paper, section A: two observers, ten units, alpha 0.095 (values 0 and 1, here 1, 2).
    first = [1, 2, 1, 1, 1, 1, 1, 1, 2, 1]
    second = [2, 2, 2, 1, 1, 2, 1, 1, 1, 1]
    for level in ("nominal", "ordinal", "interval"):
        assert alpha([first, second], level) == pytest.approx(0.095, abs=5e-4)


def test_full_agreement_is_one_and_chance_is_near_zero():
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 6, 400)
    assert alpha(np.stack([truth] * 5), "ordinal") == pytest.approx(1)
    assert abs(alpha(rng.integers(1, 6, (5, 400)), "ordinal")) < 0.05


def test_what_cannot_be_told_is_nan():
    assert np.isnan(alpha([[3, 3], [3, 3]], "ordinal"))
    assert np.isnan(krippendorff_alpha(np.array([1, 2]), np.array([0, 1])))
    assert np.isnan(krippendorff_alpha(np.array([], int), np.array([], int)))
