"""Written files: playable, of exact length, in sync, complete or absent."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.media.decode import read_audio, read_frames
from soundreel.media.encode import encode_mkv_bytes, write_mkv, write_mp4, write_wav
from soundreel.media.errors import MediaError
from soundreel.media.probe import probe
from soundreel.types import frame_to_sample


def flash_and_click(frame_rate, sample_rate, num_frames, at, size=64):
    """Dark frames and silence but for one white frame and a click of one sample at its start."""
    frames = np.full((num_frames, size, size, 3), 20, np.uint8)
    frames[at] = 235
    waveform = np.zeros((1, frame_to_sample(num_frames, frame_rate, sample_rate)), np.float32)
    waveform[0, frame_to_sample(at, frame_rate, sample_rate)] = 0.9
    return frames, waveform


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("frame_rate", "sample_rate"),
    [(Fraction(10), 16_000), (Fraction(30_000, 1001), 44_100), (Fraction(25), 48_000)],
)
def test_a_flash_and_its_click_stay_together_to_the_sample(
    tmp_path, suffix, frame_rate, sample_rate
):
    frames, waveform = flash_and_click(frame_rate, sample_rate, num_frames=40, at=13)
    path = tmp_path / f"flash{suffix}"
    write = write_mp4 if suffix == ".mp4" else write_mkv
    write(path, frames, waveform, frame_rate, sample_rate)
    shown = [frame.mean() for frame in read_frames(path, frame_rate=frame_rate)]
    heard = read_audio(path, sample_rate=sample_rate)
    assert len(shown) == 40
    assert heard.shape == waveform.shape
    assert int(np.argmax(shown)) == 13
    assert int(np.abs(heard[0]).argmax()) == frame_to_sample(13, frame_rate, sample_rate)


@pytest.mark.parametrize(
    ("num_frames", "frame_rate", "sample_rate"),
    [(16, 10, 16_000), (31, Fraction(30_000, 1001), 44_100), (7, 24, 22_050), (3, 120, 8_000)],
)
def test_mp4_lasts_exactly_as_long_as_its_frames(tmp_path, num_frames, frame_rate, sample_rate):
    path = tmp_path / "clip.mp4"
    num_samples = frame_to_sample(num_frames, frame_rate, sample_rate)
    frames = np.zeros((num_frames, 128, 128, 3), np.uint8)
    wave = 0.4 * np.sin(0.05 * np.arange(num_samples, dtype=np.float32))[None]
    write_mp4(path, frames, wave.astype(np.float32), frame_rate, sample_rate)
    info = probe(path)
    assert abs(info.duration - num_frames / Fraction(frame_rate)) < Fraction(1, sample_rate)
    assert info.audio_start == 0
    assert read_audio(path, sample_rate=sample_rate).shape == (1, num_samples)


def test_mp4_is_h264_in_420_with_aac_and_its_index_at_the_front(tmp_path):
    path = tmp_path / "clip.mp4"
    write_mp4(
        path, np.zeros((4, 128, 128, 3), np.uint8), np.zeros((2, 6400), np.float32), 10, 16_000
    )
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (audio.codec_context.name, audio.codec_context.layout.nb_channels) == ("aac", 2)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_colours_come_back_from_mp4_without_a_cast(tmp_path):
    path = tmp_path / "colours.mp4"
    colours = [(200, 40, 40), (40, 160, 60), (50, 70, 220), (128, 128, 128), (240, 235, 210)]
    frames = np.repeat(np.array(colours, np.uint8), 128 * 128, axis=0).reshape(5, 128, 128, 3)
    write_mp4(path, frames, None, 5, 16_000)
    for frame, colour in zip(read_frames(path, frame_rate=5), colours, strict=True):
        assert np.abs(frame[32:96, 32:96].mean(axis=(0, 1)) - colour).max() < 3


@pytest.mark.parametrize(("height", "width"), [(2, 2), (16, 16), (32, 40), (64, 64)])
def test_tiny_frames_keep_their_size(tmp_path, height, width):
    frames = np.full((3, height, width, 3), (30, 90, 200), np.uint8)
    write_mp4(tmp_path / "tiny.mp4", frames, None, 10, 16_000)
    shown = np.stack(list(read_frames(tmp_path / "tiny.mp4", frame_rate=10)))
    assert shown.shape == frames.shape
    assert np.abs(shown.astype(int) - frames).max() < 6


def test_tiny_frames_are_enlarged_where_wanted_and_odd_sides_made_even(tmp_path):
    rng = np.random.default_rng(0)
    frames = rng.integers(80, 176, (3, 32, 40, 3), dtype=np.uint8)
    write_mp4(tmp_path / "tiny.mp4", frames, None, 10, 16_000, enlarge=4)
    shown = np.stack(list(read_frames(tmp_path / "tiny.mp4", frame_rate=10)))
    assert shown.shape == (3, 128, 160, 3)
    blocks = shown.reshape(3, 32, 4, 40, 4, 3).mean(axis=(2, 4))
    # Even where every pixel has a colour of its own (spread 28), it survives the halved chroma.
    assert np.abs(blocks - frames).mean() < 8
    write_mp4(tmp_path / "odd.mp4", np.zeros((2, 129, 131, 3), np.uint8), None, 10, 16_000)
    info = probe(tmp_path / "odd.mp4")
    assert (info.height, info.width) == (130, 132)


def test_equal_input_gives_equal_bytes(tmp_path):
    frames, waveform = flash_and_click(Fraction(10), 16_000, 5, 2, size=16)
    first, second = (encode_mkv_bytes(frames, waveform, 10, 16_000) for _ in range(2))
    assert first == second
    frames = np.random.default_rng(0).integers(0, 256, (12, 66, 90, 3), dtype=np.uint8)
    for name in ("first.mp4", "second.mp4"):
        write_mp4(tmp_path / name, frames, waveform, 10, 16_000)
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()


def test_sound_beyond_full_scale_is_clipped_in_mp4_with_a_count(tmp_path, caplog):
    waveform = np.zeros((1, 16_000), np.float32)
    waveform[0, 4_000:4_160] = 3.0
    with caplog.at_level(logging.WARNING):
        write_mp4(tmp_path / "loud.mp4", None, waveform, 10, 16_000)
    assert "loud.mp4: 160 of 16000 samples exceed full scale, clipped" in caplog.text
    write_mkv(tmp_path / "loud.mkv", None, waveform, 10, 16_000)
    assert read_audio(tmp_path / "loud.mkv", sample_rate=16_000).max() == 3.0


def test_frames_may_come_from_a_generator(tmp_path):
    path = tmp_path / "stream.mkv"
    write_mkv(path, (np.full((8, 8, 3), k, np.uint8) for k in range(50)), None, 10, 16_000)
    assert [int(frame[0, 0, 0]) for frame in read_frames(path, frame_rate=10)] == list(range(50))


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def frames():
        yield np.zeros((8, 8, 3), np.uint8)
        raise RuntimeError("the model failed")

    (tmp_path / "clip.mkv").write_bytes(b"the old file")
    with pytest.raises(RuntimeError, match="the model failed"):
        write_mkv(tmp_path / "clip.mkv", frames(), None, 10, 16_000)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]
    assert (tmp_path / "clip.mkv").read_bytes() == b"the old file"
    with pytest.raises(MediaError, match="cannot be written"):
        write_wav(tmp_path / "absent" / "sound.wav", np.zeros((1, 10), np.float32), 16_000)


def test_what_cannot_be_written_is_refused(tmp_path):
    path = tmp_path / "x.mp4"
    picture = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="neither a frame nor a sample"):
        write_mp4(path, None, None, 10, 16_000)
    with pytest.raises(ValueError, match="no frame to write"):
        write_mp4(path, iter(()), None, 10, 16_000)
    with pytest.raises(ValueError, match="AAC in MP4 has sample rates"):
        write_mp4(path, picture, np.zeros((1, 100), np.float32), 10, 10_000)
    with pytest.raises(ValueError, match="up to 500 frames/s"):
        write_mkv(path, picture, None, 1000, 16_000)
    with pytest.raises(ValueError, match="1 to 8 channels"):
        write_mkv(path, None, np.zeros((9, 100), np.float32), 10, 16_000)
    with pytest.raises(ValueError, match="at least 2 pixels wide"):
        write_mkv(path, picture[:, :, :1], None, 10, 16_000)
    with pytest.raises(ValueError, match="frames differ in size"):
        write_mkv(path, [picture[0], picture[0, :4]], None, 10, 16_000)
    assert list(tmp_path.iterdir()) == []
