"""Borders between windows of a film, on numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.media.seam import (
    best_place,
    fade_pictures,
    fade_sound,
    meet_pictures,
    meet_sound,
)

RATE = 16_000


def tone(num_samples, hz=440.0, phase=0.0):
    time = np.arange(num_samples) / RATE
    return np.sin(2 * np.pi * hz * time + phase).astype(np.float32)[None]


def picture(value, frames):
    return np.full((frames, 2, 2, 3), value, np.uint8)


def test_each_change_of_a_picture_fade_has_an_equal_share():
    faded = fade_pictures(picture(10, 4), picture(60, 6), 4)
    assert faded[:, 0, 0, 0].tolist() == [20, 30, 40, 50, 60, 60]


def test_detail_fades_over_the_overlap_and_areas_for_longer():
    """The end of the window before is 24 levels darker, with a pattern of single pixels on it."""
    pattern = 60 * (np.indices((16, 16)).sum(axis=0) % 2)[None, :, :, None].astype(np.uint8)
    left = np.repeat(np.broadcast_to(50 + pattern, (1, 16, 16, 3)), 2, axis=0)
    right = np.full((8, 16, 16, 3), 104, np.uint8)
    faded = fade_pictures(left, right, areas_fade=5).astype(int)
    means = [round(float(x)) for x in faded.mean(axis=(1, 2, 3))]
    assert means == [84, 88, 92, 96, 100, 104, 104, 104]
    contrast = faded.max(axis=(1, 2, 3)) - faded.min(axis=(1, 2, 3))
    assert contrast.tolist() == [40, 20, 0, 0, 0, 0, 0, 0]


def test_a_small_thing_that_moved_leaves_little_of_a_ghost():
    left, right = np.full((2, 64, 64, 3), 80, np.uint8), np.full((8, 64, 64, 3), 80, np.uint8)
    left[:, 30:34, 10:14] = 240
    faded = fade_pictures(left, right, areas_fade=6).astype(int)
    assert faded[0, 30:34, 10:14].mean() > 160
    assert np.abs(faded[2:] - 80).max() < 0.15 * 160
    assert np.array_equal(faded[6:], right[6:])


def test_equal_pictures_stay_to_the_bit():
    frames = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), np.uint8)
    assert np.array_equal(fade_pictures(frames[:3], frames, 5), frames)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 200), st.integers(0, 2**31))
def test_equal_sound_stays(num_samples, fade, seed):
    sound = np.random.default_rng(seed).normal(size=(2, num_samples)).astype(np.float32)
    assert np.allclose(fade_sound(sound, sound, fade), sound, atol=1e-6)


def test_a_tone_is_joined_where_the_phases_agree():
    left, right = tone(1600), tone(1600, hz=450.0, phase=np.pi / 2)
    place, correlation = best_place(left, right, 160)
    assert correlation > 0.97
    joined = fade_sound(left, right, 160)
    assert np.array_equal(joined[:, :place], left[:, :place])
    assert np.array_equal(joined[:, place + 160 :], right[:, place + 160 :])
    within = np.abs(np.diff(left)).max()
    assert np.abs(np.diff(joined)).max() < 1.2 * within
    cut = np.concatenate([left[:, :800], right[:, 800:]], axis=1)
    assert np.abs(np.diff(cut)).max() > 4 * within


def test_strokes_are_not_cut_in_two():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 1, 3_200)).astype(np.float32)
    strokes = 0.001 * noise
    strokes[0][:, 200:1_300] += noise[0][:, 200:1_300]
    strokes[1][:, 1_700:3_100] += noise[0][:, 1_700:3_100]
    place, _ = best_place(strokes[0], strokes[1], 160)
    assert 1_300 <= place <= 1_700 - 160
    joined = fade_sound(strokes[0], strokes[1], 160)
    assert np.array_equal(joined[:, :1_300], strokes[0][:, :1_300])
    assert np.array_equal(joined[:, 1_700:], strokes[1][:, 1_700:])


def test_unlike_sounds_keep_their_power_through_the_fade():
    generator = np.random.default_rng(3)
    left, right = generator.normal(size=(2, 1, 64, 2000)).astype(np.float32)
    powers = [
        np.square(fade_sound(a[None], b[None], 2000)).mean()
        for a, b in zip(left[0], right[0], strict=True)
    ]
    assert np.mean(powers) == pytest.approx(1.0, abs=0.03)


def test_silence_on_one_side_is_faded_in_the_middle():
    place, correlation = best_place(np.zeros((1, 1_600), np.float32), tone(1_600), 160)
    assert (place, correlation) == (720, 0.0)


def test_no_overlap_gives_nothing():
    nothing = np.zeros((1, 0), np.float32)
    assert fade_sound(nothing, nothing, 10).shape == (1, 0)


def test_what_follows_a_kept_end_starts_from_it():
    following = meet_pictures(picture(100, 1), picture(60, 1), picture(62, 4), 2, 3)
    assert following[:, 0, 0, 0].tolist() == [92, 82, 72, 62]
    sound = meet_sound(
        np.array([[0.5]], np.float32),
        np.array([[0.1]], np.float32),
        np.full((1, 6), 0.1, np.float32),
        fade=3,
    )
    assert np.allclose(sound, [[0.4, 0.3, 0.2, 0.1, 0.1, 0.1]])
