"""Decoding of real recordings from the shared clips."""

import io
from fractions import Fraction

import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.media.decode import read_audio, read_frames
from soundreel.media.encode import encode_mkv_bytes
from soundreel.media.framing import Framing
from soundreel.media.probe import probe


def need(folder, *parts):
    path = folder.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def test_copies_of_broken_grid_files_show_no_grey_either(clips_folder):
    path = need(clips_folder, "grid_s1_face", "brwa4p.mp4")
    for frame in read_frames(path, frame_rate=10, framing=Framing.center_square(64)):
        assert (np.abs(frame.astype(int) - 130) <= 12).all(axis=-1).mean() < 0.05


@pytest.mark.parametrize("name", ["bbbs5s", "bbizzn"])
def test_grid_files_give_75_frames_and_30_at_ten_a_second(clips_folder, name):
    path = need(clips_folder, "grid_s1", f"{name}.mpg")
    framing = Framing.center_square(64)
    native = list(read_frames(path, frame_rate=25, framing=framing))
    assert len(native) == 75
    slow = list(read_frames(path, frame_rate=10, framing=framing))
    assert len(slow) == 30
    assert all(np.array_equal(slow[k], native[k * 5 // 2]) for k in range(30))
    sound = read_audio(path, sample_rate=16_000, num_channels=1, num_samples=48_000)
    assert np.abs(sound).max() > 0.1


def test_the_grey_start_of_a_broken_grid_file_shows_the_first_good_frame(clips_folder):
    path = need(clips_folder, "grid_s1", "bbizzn.mpg")
    framing = Framing(height=72, width=90)
    frames = np.stack(list(read_frames(path, frame_rate=25, framing=framing))).astype(int)
    # Broken frames are grey: equal channels. The set behind the talker is blue.
    colourful = np.abs(frames[..., 0] - frames[..., 2]).mean(axis=(1, 2))
    assert colourful.min() > 50
    assert all(np.array_equal(frames[k], frames[0]) for k in range(13))
    assert not np.array_equal(frames[13], frames[12])


def test_an_odd_frame_rate_and_a_late_track_are_read_exactly(clips_folder):
    path = need(clips_folder, "sound_of_water", "example_video.mp4")
    info = probe(path)
    assert info.frame_rate == Fraction(179, 6)
    assert info.audio_start == Fraction(576, 48_000)
    clip = Clip.load(path, framing=Framing(height=48, width=27))
    assert clip.num_frames == 438
    assert clip.num_samples == 438 * 48_000 * 6 // 179
    assert not clip.waveform[:, :576].any()
    assert clip.waveform[:, 576:2000].any()


def test_a_piece_of_a_film_equals_the_same_piece_of_the_whole(clips_folder):
    path = need(clips_folder, "blender_open_movies", "tears-of-steel-battle-clip-medium.webm")
    framing = Framing.center_square(48)
    whole = list(read_frames(path, frame_rate=12, num_frames=84, framing=framing))
    piece = list(read_frames(path, frame_rate=12, start=5, num_frames=24, framing=framing))
    assert np.array_equal(piece, whole[60:84])
    sound = read_audio(path, sample_rate=16_000, num_channels=1)
    for start_s in (20, 45):
        piece = read_audio(
            path, sample_rate=16_000, num_channels=1, start=start_s, num_samples=16_000
        )
        first = 16_000 * start_s
        np.testing.assert_allclose(piece, sound[:, first : first + 16_000], atol=2e-6)


def test_real_pictures_survive_a_lossless_round_trip(clips_folder):
    path = need(clips_folder, "androidx_media", "sample_with_increasing_timestamps_320w_240h.mp4")
    clip = Clip.load(path, start=2, duration=0.5)
    data = encode_mkv_bytes(clip.frames, clip.waveform, clip.frame_rate, clip.sample_rate)
    again = Clip.load(io.BytesIO(data))
    assert again.frame_rate == 60
    assert np.array_equal(again.frames, clip.frames)
    assert np.array_equal(again.waveform, clip.waveform)
