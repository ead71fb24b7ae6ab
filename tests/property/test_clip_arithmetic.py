"""Whatever the rates: pieces tile, lengths follow from one formula, nothing drifts."""

from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.clip import Clip
from soundreel.types import ClipSpec, frame_to_sample

frame_rates = st.one_of(
    st.sampled_from([Fraction(10), Fraction(25), Fraction(30_000, 1001), Fraction(179, 6)]),
    st.fractions(min_value=1, max_value=120, max_denominator=1001),
)
sample_rates = st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
quick = settings(max_examples=60, deadline=None)


@st.composite
def clips(draw, max_frames=40):
    """Frames carry their number, samples theirs."""
    frame_rate, sample_rate = draw(frame_rates), draw(sample_rates)
    num_frames = draw(st.integers(1, max_frames))
    length = num_frames * sample_rate / frame_rate
    num_samples = draw(st.sampled_from(sorted({max(1, floor(length)), ceil(length)})))
    frames = np.zeros((num_frames, 1, 1, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(num_frames)
    waveform = np.arange(num_samples, dtype=np.float32)[None]
    return Clip(frames, waveform, frame_rate, sample_rate)


@quick
@given(frame_rate=frame_rates, sample_rate=sample_rates, frames=st.lists(st.integers(0, 10_000)))
def test_windows_of_frames_own_samples_that_tile(frame_rate, sample_rate, frames):
    edges = [frame_to_sample(frame, frame_rate, sample_rate) for frame in sorted(frames)]
    assert edges == sorted(edges)
    for frame, sample in zip(sorted(frames), edges, strict=True):
        exact = frame * sample_rate / frame_rate
        assert exact - 1 < sample <= exact


@quick
@given(clip=clips(), data=st.data())
def test_cutting_a_clip_anywhere_gives_parts_that_join_to_it(clip, data):
    at = sorted(data.draw(st.sets(st.integers(1, max(1, clip.num_frames - 1)), max_size=4)))
    edges = [0, *(edge for edge in at if edge < clip.num_frames), clip.num_frames]
    parts = [
        clip.cut(begin / clip.frame_rate, (end - begin) / clip.frame_rate)
        for begin, end in pairwise(edges)
    ]
    assert np.array_equal(np.concatenate([part.frames for part in parts]), clip.frames)
    joined = np.concatenate([part.waveform for part in parts], axis=1)
    whole = frame_to_sample(clip.num_frames, clip.frame_rate, clip.sample_rate)
    assert np.array_equal(joined, clip.waveform[:, :whole])
    assert sum(part.duration for part in parts) == clip.duration


@quick
@given(clip=clips(), frame_rate=frame_rates)
def test_a_new_frame_rate_shows_at_each_time_the_frame_of_that_time(clip, frame_rate):
    if clip.duration < 1 / frame_rate:
        return
    new = clip.resample(frame_rate=frame_rate)
    assert new.num_frames == floor(clip.duration * frame_rate)
    assert clip.duration - 1 / frame_rate < new.duration <= clip.duration
    for k, frame in enumerate(new.frames):
        shown = int(frame[0, 0, 0])
        assert shown / clip.frame_rate <= k / frame_rate < (shown + 1) / clip.frame_rate
    assert new.num_samples == frame_to_sample(new.num_frames, frame_rate, clip.sample_rate)
    assert np.array_equal(new.waveform, clip.waveform[:, : new.num_samples])


@settings(max_examples=25, deadline=None)
@given(clip=clips(max_frames=12), sample_rate=sample_rates)
def test_a_new_sample_rate_keeps_the_frames_and_the_length(clip, sample_rate):
    new = clip.resample(sample_rate=sample_rate)
    assert np.array_equal(new.frames, clip.frames)
    assert new.num_samples == frame_to_sample(clip.num_frames, clip.frame_rate, sample_rate)


@quick
@given(frame_rate=frame_rates, sample_rate=sample_rates, data=st.data())
def test_every_window_of_a_clip_fits_the_model(frame_rate, sample_rate, data):
    num_frames = data.draw(st.integers(1, 20))
    spec = ClipSpec(
        num_frames=num_frames, height=1, width=1, frame_rate=frame_rate, sample_rate=sample_rate
    )
    if spec.num_samples == 0:
        return
    total = num_frames + data.draw(st.integers(0, 20))
    clip = Clip(
        np.zeros((total, 1, 1, 3), np.uint8),
        np.zeros((1, frame_to_sample(total, frame_rate, sample_rate)), np.float32),
        frame_rate,
        sample_rate,
    )
    first = data.draw(st.integers(0, total - num_frames))
    av = clip.cut(first / frame_rate, spec.duration).to_av(spec)
    assert av.video.shape == (1, *spec.video_shape)
    assert av.audio.shape == (1, *spec.audio_shape)
