"""Where sound begins after a seek, from blocks of differing length and times of coarse ticks."""

from fractions import Fraction

import numpy as np

from soundreel.media.audio_track import _steady_start

RATE = 48_000
LENGTHS = (648, 960, 480, 1920, 120, 2880)


def blocks(start, late=()):
    """Samples that follow one another from `start`; the blocks named in `late` say 20 ms more."""
    places = start + np.cumsum((0, *LENGTHS[:-1]))
    return [
        (int(place) + (960 if number in late else 0), np.zeros((1, length), np.float32))
        for number, (place, length) in enumerate(zip(places, LENGTHS, strict=True))
    ]


def test_the_earliest_time_that_successors_allow_is_the_start():
    tick = Fraction(1, 1000)
    for _ in range(20):  # type checks look at one block by chance
        assert _steady_start(blocks(1000), RATE, tick) == 1000 + 24
        assert _steady_start(blocks(1000, late=(0, 2)), RATE, tick) == 1000 + 24


def test_what_comes_after_a_gap_says_nothing_of_the_start():
    before, after = blocks(5000)[:2], blocks(0)[2:]
    assert _steady_start(before + after, RATE, Fraction(1, RATE)) == 5000


def test_blocks_without_times_leave_the_start_open():
    assert _steady_start([(None, block) for _, block in blocks(0)], RATE, Fraction(1, 1000)) is None
