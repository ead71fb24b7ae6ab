"""Frames and samples chosen by timestamp, from odd and broken files and from real ones."""

import io
from fractions import Fraction

import numpy as np
import pytest

from soundreel.media.decode import iter_audio, read_audio, read_frames
from soundreel.media.encode import encode_mkv_bytes, write_mkv, write_mp4
from soundreel.media.errors import MediaError
from soundreel.media.framing import Framing
from soundreel.media.probe import probe


def square_column(frame):
    """Left edge of the bright square that the hostile media's pictures show."""
    row = frame.shape[0] // 2 + 4
    return int(np.flatnonzero(frame[row, :, 1] > 180)[0])


def numbered(count, height=16, width=16):
    """Frames whose grey level is their number."""
    return np.repeat(np.arange(count, dtype=np.uint8), height * width * 3).reshape(
        count, height, width, 3
    )


def numbers(frames):
    return [int(frame[0, 0, 0]) for frame in frames]


def tone_error(samples, hostile_media, sample_rate, start):
    """Largest difference to the hostile media's tone begun at sample `start`, half a second in.

    (AAC needs some blocks until a tone that comes out of silence is coded well.)
    """
    begin, end = sample_rate // 2, sample_rate * 9 // 10
    expected = hostile_media.tone(end, sample_rate)[0, begin:]
    return np.abs(samples[start + begin : start + end] - expected).max()


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        (Fraction(10), Fraction(10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (Fraction(10), Fraction(5), [0, 2, 4, 6, 8]),
        (Fraction(10), Fraction(20), [k // 2 for k in range(20)]),
        (Fraction(30), Fraction(10), [0, 3, 6]),
        (Fraction(25), Fraction(10), [0, 2, 5, 7]),
        (Fraction(30_000, 1001), Fraction(30_000, 1001), list(range(10))),
    ],
)
def test_each_wanted_time_gets_the_last_frame_that_began_by_then(stored, wanted, expected):
    file = io.BytesIO(encode_mkv_bytes(numbered(10), None, stored, 16_000))
    assert numbers(read_frames(file, frame_rate=wanted)) == expected


def test_frames_of_a_variable_rate_file_are_chosen_by_time_not_by_number(hostile_folder):
    frames = list(read_frames(hostile_folder["variable_rate.mp4"], frame_rate=10, num_frames=18))
    # Frames 0 and 1 begin at 0 and 40 ms, 2 and 3 at 200 and 240 ms.
    assert [square_column(frame) // 4 for frame in frames[:8]] == [0, 1, 2, 3, 4, 5, 6, 7]
    fine = list(read_frames(hostile_folder["variable_rate.mp4"], frame_rate=25, num_frames=10))
    assert [square_column(frame) // 4 for frame in fine] == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3]


def test_a_rotation_flag_turns_the_picture_upright(hostile_folder, hostile_media):
    turned = next(read_frames(hostile_folder["rotated.mp4"], frame_rate=10))
    assert turned.shape == (64, 48, 3)
    expected = np.rot90(hostile_media.picture(0))
    assert np.abs(turned.astype(int) - expected).mean() < 4
    assert turned[-4, 4, 0] > 150 > turned[4, 4, 0]  # the red corner went to the bottom left
    info = probe(hostile_folder["rotated.mp4"])
    assert (info.height, info.width, info.rotation) == (64, 48, 90)


def test_the_clock_starts_at_the_first_frame(hostile_folder):
    frames = list(read_frames(hostile_folder["video_starts_late.mkv"], frame_rate=10, num_frames=6))
    assert [square_column(frame) // 4 for frame in frames] == [0, 1, 2, 3, 4, 5]


def test_the_last_frame_is_held_for_half_a_second_and_no_longer(tmp_path):
    path = tmp_path / "short.mkv"
    write_mkv(path, numbered(10), None, 10, 16_000)
    assert numbers(read_frames(path, frame_rate=10, num_frames=14))[9:] == [9] * 5
    with pytest.raises(MediaError, match=r"video ends at 1\.00\d s.* earlier or shorter"):
        list(read_frames(path, frame_rate=10, num_frames=20))
    with pytest.raises(MediaError, match="video ends"):
        list(read_frames(path, frame_rate=10, start=5))


def test_frames_whose_time_is_not_wholly_in_the_video_are_left_out(tmp_path):
    path = tmp_path / "odd.mkv"
    write_mkv(path, numbered(29), None, Fraction(25), 16_000)  # 1.16 s
    assert len(list(read_frames(path, frame_rate=10))) == 11


def test_a_start_that_was_encoded_without_its_reference_shows_the_first_good_frame(tmp_path):
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    broken = np.full((6, 64, 64, 3), 130, np.uint8)
    for k in range(1, 6):  # more and more of the scene shows through the grey
        broken[k, :, : 4 * k] = scene[:, : 4 * k]
    frames = np.concatenate([broken, np.repeat(scene[None], 14, axis=0)])
    path = tmp_path / "broken.mkv"
    write_mkv(path, frames, None, 10, 16_000)
    assert all(np.array_equal(frame, scene) for frame in read_frames(path, frame_rate=10))
    write_mkv(path, np.concatenate([broken[:1]] * 15 + [scene[None]]), None, 10, 16_000)
    meant = list(read_frames(path, frame_rate=10))
    assert [int(np.ptp(frame)) > 0 for frame in meant] == [False] * 15 + [True]


def test_one_frame_is_read_from_a_video_of_one(hostile_folder):
    assert len(list(read_frames(hostile_folder["one_frame.mp4"], frame_rate=4))) == 1


@pytest.mark.parametrize("start", [Fraction(1, 3), Fraction(5, 2), Fraction(47, 10)])
def test_reading_from_the_middle_equals_reading_it_all(tmp_path, start):
    path = tmp_path / "six_seconds.mp4"
    rng = np.random.default_rng(0)
    frames = numbered(150) + rng.integers(0, 80, (1, 16, 16, 3), dtype=np.uint8)
    sound = (0.3 * rng.standard_normal((1, 6 * 44_100))).astype(np.float32)
    write_mp4(path, frames, sound, 25, 44_100)
    begin = start * 25
    if begin.denominator == 1:
        whole = list(read_frames(path, frame_rate=25))
        piece = list(read_frames(path, frame_rate=25, start=start, num_frames=8))
        assert np.array_equal(piece, whole[int(begin) : int(begin) + 8])
    first = int(start * 16_000)
    all_sound = read_audio(path, sample_rate=16_000)
    part = read_audio(path, sample_rate=16_000, start=start, num_samples=9_999)
    np.testing.assert_allclose(part, all_sound[:, first : first + 9_999], atol=2e-6)


def test_a_seek_deep_into_a_long_file_is_exact_to_the_sample_and_the_frame(tmp_path):
    path = tmp_path / "long.mp4"
    seconds, sample_rate = 50, 8000
    frames = numbered(seconds * 5)
    click = np.zeros((1, seconds * sample_rate), np.float32)
    click[0, 45 * sample_rate + 123] = 0.9
    write_mp4(path, frames, click, 5, sample_rate)
    part = read_audio(path, sample_rate=sample_rate, start=45, num_samples=400)
    assert int(np.abs(part[0]).argmax()) == 123
    whole = list(read_frames(path, frame_rate=5))
    piece = list(read_frames(path, frame_rate=5, start=45, num_frames=5))
    assert np.array_equal(piece, whole[225:230])


def test_after_a_seek_in_matroska_sound_is_in_place_to_a_millisecond(tmp_path, hostile_media):
    path = tmp_path / "long.mkv"
    rng = np.random.default_rng(0)
    sound = rng.uniform(-0.5, 0.5, (1, 50 * 8000)).astype(np.float32)
    hostile_media.write(path, sound=sound, sample_rate=8000, audio_codec="libopus")
    whole = read_audio(path, sample_rate=8000)[0]
    piece = read_audio(path, sample_rate=8000, start=45, num_samples=4000)[0]
    errors = {
        shift: np.abs(piece - whole[360_000 + shift : 364_000 + shift]).mean()
        for shift in range(-8, 9)
    }
    assert min(errors.values()) < 0.1 * np.abs(piece).mean()


def test_sound_that_starts_late_stands_at_its_time_after_silence(hostile_folder, hostile_media):
    path = hostile_folder["audio_starts_late.mp4"]
    samples = read_audio(path, sample_rate=16_000, num_samples=32_000)[0]
    assert np.abs(samples[:7_000]).max() < 1e-3
    assert tone_error(samples, hostile_media, 16_000, 8_000) < 2e-3


def test_sound_that_ends_early_is_followed_by_silence(hostile_folder, hostile_media):
    path = hostile_folder["audio_ends_early.mp4"]
    samples = read_audio(path, sample_rate=16_000, num_samples=32_000)[0]
    assert tone_error(samples, hostile_media, 16_000, 0) < 2e-3
    assert not samples[16_000:].any()


@pytest.mark.parametrize("name", ["low_sample_rate.mp4", "high_sample_rate.mp4", "surround.mkv"])
@pytest.mark.parametrize("num_channels", [1, 2])
def test_any_rate_and_layout_becomes_the_wanted_one(
    hostile_folder, hostile_media, name, num_channels
):
    samples = read_audio(hostile_folder[name], sample_rate=16_000, num_channels=num_channels)
    assert samples.shape == (num_channels, 32_000)
    if name == "surround.mkv":
        # Equal signals in all channels of 5.1 keep at most their level, whatever the mix.
        assert 0.4 < np.abs(samples[:, 4_000:28_000]).max() <= 0.5001
    else:
        for channel in samples:
            # AAC's noise at these rates; the tone a single sample late would be off by 0.086.
            assert tone_error(channel, hostile_media, 16_000, 0) < 0.03


def test_mono_is_the_mean_of_two_channels_and_two_channels_repeat_mono():
    rng = np.random.default_rng(1)
    stereo = rng.uniform(-1, 1, (2, 4000)).astype(np.float32)
    file = io.BytesIO(encode_mkv_bytes(None, stereo, 10, 16_000))
    mono = read_audio(file, sample_rate=16_000, num_channels=1)
    np.testing.assert_allclose(mono[0], stereo.mean(axis=0), atol=1e-6)
    file = io.BytesIO(encode_mkv_bytes(None, stereo[:1], 10, 16_000))
    assert np.array_equal(read_audio(file, sample_rate=16_000, num_channels=2), stereo[[0, 0]])


@pytest.mark.parametrize("native", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_resampled_tone_equals_the_tone_at_the_new_rate(native):
    seconds, hz = 1, 1000
    times = np.arange(native * seconds) / native
    tone = (0.5 * np.sin(2 * np.pi * hz * times)).astype(np.float32)[None]
    file = io.BytesIO(encode_mkv_bytes(None, tone, 10, native))
    samples = read_audio(file, sample_rate=16_000)
    assert samples.shape == (1, 16_000)
    expected = 0.5 * np.sin(2 * np.pi * hz * np.arange(16_000) / 16_000)
    # Away from the ends, where the tone begins out of silence.
    np.testing.assert_allclose(samples[0, 400:-400], expected[400:-400], atol=2e-5)


def test_what_lies_above_half_the_new_rate_is_removed():
    tone = np.sin(2 * np.pi * 10_000 * np.arange(44_100) / 44_100).astype(np.float32)[None]
    file = io.BytesIO(encode_mkv_bytes(None, tone, 10, 44_100))
    assert np.abs(read_audio(file, sample_rate=16_000)[0, 400:-400]).max() < 1e-4


def test_blocks_joined_are_the_whole_and_of_the_wanted_length(hostile_folder):
    path = hostile_folder["surround.mkv"]
    blocks = list(iter_audio(path, sample_rate=16_000, num_channels=1, block_samples=5_000))
    assert [block.shape[1] for block in blocks] == [5_000] * 6 + [2_000]
    whole = read_audio(path, sample_rate=16_000, num_channels=1)
    assert np.array_equal(np.concatenate(blocks, axis=1), whole)


def test_an_open_file_can_be_read_twice(tmp_path):
    path = tmp_path / "clip.mkv"
    write_mkv(path, numbered(3), np.ones((1, 4800), np.float32), 10, 16_000)
    with path.open("rb") as file:
        assert numbers(read_frames(file, frame_rate=10)) == [0, 1, 2]
        assert read_audio(file, sample_rate=16_000).shape == (1, 4800)


def test_files_nothing_can_be_read_of_give_one_line_with_file_cause_and_remedy(
    hostile_folder, hostile_media, tmp_path
):
    for name in hostile_media.UNREADABLE:
        for read in (probe, lambda path: list(read_frames(path, frame_rate=10))):
            with pytest.raises(MediaError, match="cannot be read as media") as error:
                read(hostile_folder[name])
            assert "\n" not in str(error.value)
            assert name in str(error.value)
    with pytest.raises(MediaError, match="no such file; check the path"):
        probe(tmp_path / "absent.mp4")


def test_a_title_in_another_encoding_does_not_matter(hostile_media, tmp_path):
    path = hostile_media.good(tmp_path / "title.mp4", num_frames=3)
    data = path.read_bytes()
    assert data.count(b"Lavf") == 1
    path.write_bytes(data.replace(b"Lavf", b"L\xe4vf"))  # Latin-1, as old cameras write
    assert len(list(read_frames(path, frame_rate=10))) == 3


def test_absent_tracks_are_told(hostile_folder):
    with pytest.raises(MediaError, match="has no audio track"):
        read_audio(hostile_folder["no_audio.mp4"], sample_rate=16_000)
    with pytest.raises(MediaError, match="has no video track"):
        list(read_frames(hostile_folder["no_video.m4a"], frame_rate=10))
    with pytest.raises(MediaError, match="no sound that can be decoded"):
        read_audio(hostile_folder["three_hour_empty.wav"], sample_rate=16_000)


def test_what_is_left_of_a_truncated_or_damaged_file_is_read(hostile_folder):
    for name in ("truncated_after_index.mp4", "damaged_middle.mkv"):
        frames = list(read_frames(hostile_folder[name], frame_rate=10))
        assert 5 <= len(frames) < 20, name
        assert [square_column(frame) // 4 for frame in frames[:5]] == [0, 1, 2, 3, 4]


def test_a_header_of_three_hours_costs_no_more_than_what_the_file_holds(hostile_folder):
    path = hostile_folder["three_hour_silent_header.mkv"]
    assert probe(path).duration == 10_800
    assert len(list(read_frames(path, frame_rate=10))) == 4
    assert read_audio(path, sample_rate=16_000).shape[1] < 16_000
    with pytest.raises(MediaError, match=r"times jump by 10800 s after 0\.\d s"):
        list(read_frames(hostile_folder["three_hour_jump.mkv"], frame_rate=10))


def test_impossible_wishes_are_refused_at_once(hostile_folder):
    path = hostile_folder["one_frame.mp4"]
    with pytest.raises(ValueError, match="must be positive"):
        read_frames(path, frame_rate=0)
    with pytest.raises(ValueError, match="start not negative"):
        read_audio(path, sample_rate=16_000, start=-1)
    with pytest.raises(ValueError, match="num_channels must be 1, 2 or None"):
        read_audio(path, sample_rate=16_000, num_channels=4)
    box = Framing(kind="box", height=8, width=8, box=(60, 0, 30, 30))
    with pytest.raises(ValueError, match="leaves the picture of 64 x 48"):
        list(read_frames(path, frame_rate=10, framing=box))
