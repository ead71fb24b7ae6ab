"""What is written is read back: Matroska bit by bit, MP4 in length and time."""

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.clip import Clip
from soundreel.media.decode import read_audio, read_frames
from soundreel.media.encode import AAC_RATES, encode_mkv_bytes, write_mp4
from soundreel.media.probe import probe
from soundreel.types import frame_to_sample

frame_rates = st.one_of(
    st.sampled_from([Fraction(1), Fraction(24_000, 1001), Fraction(60_000, 1001), Fraction(240)]),
    st.fractions(min_value=1, max_value=240, max_denominator=60),
)


@st.composite
def recordings(draw, sample_rates, max_side, max_frames, scale=2.0):
    """Random frames and as much random sound."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    frame_rate, sample_rate = draw(frame_rates), draw(sample_rates)
    height, width = draw(st.integers(1, max_side)), draw(st.integers(2, max_side))
    num_frames = draw(st.integers(1, max_frames))
    frames = rng.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    num_samples = frame_to_sample(num_frames, frame_rate, sample_rate)
    shape = (draw(st.integers(1, 8)), num_samples)
    waveform = (scale * rng.standard_normal(shape)).astype(np.float32)
    return frames, waveform, frame_rate, sample_rate


@settings(max_examples=40, deadline=None)
@given(recording=recordings(st.integers(4_000, 192_000), max_side=40, max_frames=12))
def test_lossless_files_give_back_every_bit_and_rate(recording):
    frames, waveform, frame_rate, sample_rate = recording
    clip = Clip.load(io.BytesIO(encode_mkv_bytes(frames, waveform, frame_rate, sample_rate)))
    assert clip.frame_rate == frame_rate
    assert clip.sample_rate == sample_rate
    assert np.array_equal(clip.frames, frames)
    assert np.array_equal(clip.waveform, waveform)


@settings(max_examples=25, deadline=None)
@given(
    recording=recordings(st.sampled_from([16_000, 44_100]), max_side=8, max_frames=30),
    data=st.data(),
)
def test_any_piece_of_a_lossless_file_is_that_piece(recording, data):
    frames, waveform, frame_rate, sample_rate = recording
    file = io.BytesIO(encode_mkv_bytes(frames, waveform, frame_rate, sample_rate))
    first = data.draw(st.integers(0, len(frames) - 1))
    count = data.draw(st.integers(1, len(frames) - first))
    start = first / frame_rate
    piece = list(read_frames(file, frame_rate=frame_rate, start=start, num_frames=count))
    assert np.array_equal(piece, frames[first : first + count])
    begin, end = (frame_to_sample(k, frame_rate, sample_rate) for k in (first, first + count))
    samples = read_audio(file, sample_rate=sample_rate, start=start, num_samples=end - begin)
    assert np.array_equal(samples, waveform[:, begin:end])


@settings(max_examples=12, deadline=None)
@given(recording=recordings(st.sampled_from(AAC_RATES), max_side=140, max_frames=6, scale=0.1))
def test_mp4_files_last_as_long_as_what_was_written(tmp_path_factory, recording):
    frames, waveform, frame_rate, sample_rate = recording
    path = Path(tmp_path_factory.mktemp("mp4")) / "clip.mp4"
    write_mp4(path, frames, waveform, frame_rate, sample_rate)
    info = probe(path)
    assert abs(info.duration - len(frames) / frame_rate) <= Fraction(1, sample_rate)
    assert info.height >= frames.shape[1]
    assert info.height % 2 == info.width % 2 == 0
    shown = list(read_frames(path, frame_rate=frame_rate))
    assert len(shown) == len(frames)
    heard = read_audio(path, sample_rate=sample_rate)
    assert heard.shape == waveform.shape
