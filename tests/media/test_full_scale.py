import logging

import numpy as np
import pytest

from soundreel.media.full_scale import clipped


def tone(peak: float) -> np.ndarray:
    """Return a sine wave of amplitude 0.5 with seven samples at `peak`."""
    waveform = 0.5 * np.sin(np.arange(8_000, dtype=np.float32) / 10)[None]
    waveform[0, :7] = peak
    return waveform


@pytest.mark.parametrize("peak", [2.0, -2.0, 1e30, np.inf])
def test_what_may_be_heard_is_logged(peak, caplog):
    with caplog.at_level(logging.WARNING):
        limited = clipped(tone(peak), "loud.wav")
    assert "loud.wav: 7 of 8000 samples exceed full scale, clipped" in caplog.text
    assert np.abs(limited).max() == 1


def test_what_is_lost_is_measured_against_the_sound(caplog):
    clipped(tone(2.0))  # seven ones are lost, of a power of 8,000 / 8 and seven fours
    assert "what is lost is -22 dB of the sound" in caplog.text


@pytest.mark.parametrize("peak", [1.0, 1.1])
def test_a_peak_that_loses_little_is_limited_without_a_word(peak, caplog):
    given = tone(peak)
    with caplog.at_level(logging.WARNING):
        limited = clipped(given)
    assert caplog.text == ""
    assert limited.max() == 1
    assert given.max() == np.float32(peak)  # a copy was limited
    assert np.array_equal(limited[:, 7:], given[:, 7:])
    assert limited.dtype == np.float32
