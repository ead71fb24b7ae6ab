"""Films from windows: counts, borders, beginnings, on a maker whose windows are plain numbers."""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.clip import Clip
from soundreel.film import film, join_clips, join_windows, window_seed
from soundreel.film_clock import FilmClock, given_frames, given_sound
from soundreel.types import ClipSpec

SPEC = ClipSpec(num_frames=8, height=4, width=4, frame_rate=Fraction(10), sample_rate=8_000)


@dataclass
class NoisyMaker:
    """Windows of noise whose level is the window's number; remembers what it was asked."""

    clip: ClipSpec = SPEC
    overlap: int = 2
    asked: list = field(default_factory=list)

    def begin(self, past):
        self.asked.append(past)
        return 0

    def window(self, state, given, seed):
        self.asked.append((state, given, seed))
        generator = np.random.default_rng(seed)
        shape = (self.clip.num_frames, self.clip.height, self.clip.width, 3)
        frames = generator.integers(0, 256, shape, np.uint8)
        sound = generator.normal(size=(1, self.clip.num_samples)).astype(np.float32)
        return Clip(frames, sound, self.clip.frame_rate, self.clip.sample_rate), state + 1


def plain_window(start, spec=SPEC):
    """The window of a film whose frame k is k and whose sample n is n."""
    frames = np.broadcast_to(
        np.arange(start, start + spec.num_frames, dtype=np.uint8)[:, None, None, None],
        (spec.num_frames, spec.height, spec.width, 3),
    )
    first = spec.frame_to_sample(start)
    sound = np.arange(first, first + spec.num_samples, dtype=np.float32)[None]
    return Clip(frames, sound, spec.frame_rate, spec.sample_rate)


rates = st.sampled_from([Fraction(10), Fraction(25), Fraction(30000, 1001), Fraction(12)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 24),
    st.data(),
    rates,
    st.sampled_from([8_000, 16_000, 44_100]),
    st.integers(1, 200),
    st.sampled_from(["fade", "butt"]),
)
def test_pieces_add_up_to_the_frames_and_samples_of_the_film(
    num_frames, data, frame_rate, sample_rate, length, join
):
    spec = ClipSpec(
        num_frames=num_frames, height=1, width=1, frame_rate=frame_rate, sample_rate=sample_rate
    )
    overlap = data.draw(st.integers(0, num_frames // 2))
    clock = FilmClock(spec, overlap)
    windows = [plain_window(clock.start(k), spec) for k in range(clock.num_windows(length))]
    whole = join_clips(join_windows(windows, clock, num_frames=length, join=join))
    assert whole.num_frames == length
    assert whole.num_samples == spec.frame_to_sample(length)
    assert np.array_equal(whole.frames[:, 0, 0, 0], np.arange(length) % 256)
    held = spec.frame_to_sample(num_frames) * frame_rate != num_frames * sample_rate
    if not held:  # else the last sample of some windows without overlap stands in for the next
        assert np.allclose(whole.waveform[0], np.arange(whole.num_samples), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 4), st.sampled_from(["fade", "butt"]))
def test_a_longer_film_begins_like_a_shorter_one_bit_for_bit(a, b, overlap, join):
    short, long = (
        join_clips(film(NoisyMaker(overlap=overlap), seed=5, num_frames=n, join=join))
        for n in sorted((a, b))
    )
    assert np.array_equal(long.frames[: short.num_frames], short.frames)
    assert np.array_equal(long.waveform[:, : short.num_samples], short.waveform)


def test_butt_joined_windows_are_cut_and_faded_ones_differ_around_the_border_alone():
    whole, faded = (
        join_clips(film(NoisyMaker(), seed=5, num_frames=12, join=join))
        for join in ("butt", "fade")
    )
    first, second = (NoisyMaker().window(0, None, window_seed(5, k))[0] for k in range(2))
    assert np.array_equal(whole.frames, np.concatenate([first.frames, second.frames[2:6]]))
    sound = [first.waveform, second.waveform[:, 1_600:4_800]]
    assert np.array_equal(whole.waveform, np.concatenate(sound, axis=1))
    changed = np.flatnonzero((whole.waveform != faded.waveform)[0])
    assert 4_800 <= changed.min() < changed.max() < 6_400
    changed = np.flatnonzero((whole.frames != faded.frames).any(axis=(1, 2, 3)))
    assert (changed.min(), changed.max()) == (6, 8), "areas fade over half a hop"


def test_an_endless_film_begins_like_any_other_and_other_seeds_differ():
    endless = join_clips(islice(film(NoisyMaker(), seed=5), 3))
    ended = join_clips(film(NoisyMaker(), seed=5, num_frames=18))
    other = join_clips(film(NoisyMaker(), seed=6, num_frames=18))
    assert np.array_equal(endless.frames, ended.frames)
    assert np.array_equal(endless.waveform, ended.waveform)
    assert not np.array_equal(other.frames, ended.frames)


def test_window_seeds_differ_and_the_first_is_the_films():
    assert window_seed(7, 0) == 7
    assert len({window_seed(seed, k) for seed in range(3) for k in range(50)}) == 150


@pytest.mark.parametrize("overlap", [0, 2])
def test_what_a_film_goes_on_from_stays_as_it_is(overlap):
    maker = NoisyMaker(overlap=overlap)
    after = join_clips(film(NoisyMaker(), seed=1, num_frames=13))
    whole = join_clips(film(maker, seed=2, num_frames=40, after=after))
    assert whole.num_frames == 40
    assert whole.num_samples == SPEC.frame_to_sample(40)
    assert np.array_equal(whole.frames[:13], after.frames)
    assert np.array_equal(whole.waveform[:, : after.num_samples], after.waveform)
    past = maker.asked[0]
    assert np.array_equal(past.frames, after.frames[5:])
    assert np.array_equal(past.waveform, after.waveform[:, SPEC.frame_to_sample(5) :])
    # Window numbers go on after the given clip, which is window 0.
    assert maker.asked[1][2] == window_seed(2, 1)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_only_one_modality_goes_on(modality):
    maker = NoisyMaker()
    after = join_clips(film(NoisyMaker(), seed=1, num_frames=13))
    whole = join_clips(film(maker, num_frames=30, after=after, modality=modality))
    assert (whole.frames is None) == (modality == "audio")
    assert (whole.waveform is None) == (modality == "video")
    assert whole.duration == 3
    assert (maker.asked[0].frames is None) == (modality == "audio")


def test_given_pictures_and_sound_are_cut_into_the_windows_of_the_clock():
    clock = FilmClock(SPEC, 2)
    pictures = [np.full((4, 4, 3), k, np.uint8) for k in range(15)]
    windows = list(given_frames(pictures, clock))
    starts = [window.frames[:, 0, 0, 0].tolist() for window in windows]
    assert starts == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [6, 7, 8, 9, 10, 11, 12, 13],
        [12, 13, 14, 14, 14, 14, 14, 14],
    ]
    sound = np.arange(1, 9_001, dtype=np.float32)[None]
    heard = list(given_sound(np.array_split(sound, 7, axis=1), clock))
    assert [window.num_samples for window in heard] == [6_400, 6_400]
    assert np.array_equal(heard[1].waveform[0, :4_200], sound[0, 4_800:])
    assert not heard[1].waveform[0, 4_200:].any()
    assert list(given_frames([], clock)) == list(given_sound([], clock)) == []


def test_a_film_lasts_as_long_as_what_is_given():
    clock = FilmClock(SPEC, 2)
    pictures = [np.full((4, 4, 3), k, np.uint8) for k in range(15)]
    maker = NoisyMaker()
    whole = join_clips(film(maker, num_frames=15, given=given_frames(pictures, clock)))
    assert whole.num_frames == 15
    assert [asked[1].num_frames for asked in maker.asked[1:]] == [8, 8, 8]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="overlap by 0 to 4 frames, got 5"):
        FilmClock(SPEC, 5)
    with pytest.raises(ValueError, match="no frame"):
        FilmClock(SPEC).num_frames(0.01)
    after = join_clips(film(NoisyMaker(), num_frames=10))
    with pytest.raises(ValueError, match="ask for a longer film"):
        list(film(NoisyMaker(), num_frames=10, after=after))
    with pytest.raises(ValueError, match="give a longer clip"):
        list(film(NoisyMaker(), num_frames=20, after=after.cut(0, 0.5)))
    silent = Clip(after.frames, None, after.frame_rate)
    with pytest.raises(ValueError, match="has no audio"):
        list(film(NoisyMaker(), num_frames=20, after=silent))
