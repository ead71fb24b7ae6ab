"""Held-out sources are chosen by a hash of their names."""

import pytest

from soundreel.data.split import assign_splits

NAMES = [f"video {number}" for number in range(2000)]


def _split(names, *, test=0.0, valid=0.0, seed=0, known=None):
    return assign_splits(names, test=test, valid=valid, seed=seed, known=known or {})


def test_shares_are_held_out_within_chance():
    splits = list(_split(NAMES, test=0.1, valid=0.2).values())
    assert 160 <= splits.count("test") <= 240
    assert 300 <= splits.count("valid") <= 420  # a fifth of the rest: 360
    assert len(splits) == 2000


def test_numbers_are_held_out_exactly():
    splits = list(_split(NAMES, test=32.0, valid=5.0).values())
    assert (splits.count("test"), splits.count("valid"), splits.count("train")) == (32, 5, 1963)


@pytest.mark.parametrize("amounts", [{"test": 0.1, "valid": 0.1}, {"test": 30.0, "valid": 7.0}])
def test_more_sources_move_none(amounts):
    first = _split(NAMES[:1500], **amounts)
    grown = _split(NAMES, known=first, **amounts)
    assert {name: grown[name] for name in first} == first
    assert len(grown) == 2000


def test_shares_do_not_even_need_the_earlier_result():
    first, grown = _split(NAMES[:1500], test=0.1), _split(NAMES, test=0.1)
    assert all(grown[name] == split for name, split in first.items())


def test_the_seed_chooses_and_the_order_does_not():
    one = _split(NAMES, test=32.0)
    assert _split(reversed(NAMES), test=32.0) == one
    assert _split(NAMES, test=32.0, seed=1) != one


def test_more_asked_for_than_there_are_is_all():
    assert set(_split(["a", "b"], test=5.0).values()) == {"test"}
