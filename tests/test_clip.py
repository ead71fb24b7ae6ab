"""Clips: one clock for frames and sound, and the way from files to model tensors and back."""

import base64
import logging
from fractions import Fraction

import numpy as np
import pytest
import torch

import soundreel
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.media.errors import MediaError
from soundreel.media.framing import Framing
from soundreel.types import AV, ClipSpec


def make_clip(num_frames=20, frame_rate=Fraction(10), sample_rate=16_000, size=(16, 16)):
    """Frame k is grey level k; sample n is n / 2**20."""
    frames = np.repeat(np.arange(num_frames, dtype=np.uint8), size[0] * size[1] * 3)
    num_samples = int(num_frames * sample_rate / frame_rate)
    waveform = (np.arange(num_samples, dtype=np.float32) / 2**20)[None]
    return Clip(frames.reshape(num_frames, *size, 3), waveform, frame_rate, sample_rate)


def levels(clip):
    return [int(frame[0, 0, 0]) for frame in clip.frames]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".wav"])
def test_what_is_saved_can_be_loaded(tmp_path, suffix):
    clip = make_clip()
    path = tmp_path / f"clip{suffix}"
    clip.save(path)
    again = Clip.load(path)
    assert again.sample_rate == clip.sample_rate
    assert again.waveform.shape == clip.waveform.shape
    if suffix != ".mp4":
        assert np.array_equal(again.waveform, clip.waveform)
    if suffix == ".wav":
        assert again.frames is None
        assert again.duration == 2
        return
    assert again.frame_rate == 10
    assert again.num_frames == 20
    if suffix == ".mkv":
        assert np.array_equal(again.frames, clip.frames)
    else:
        assert again.frames.shape == clip.frames.shape
        assert np.abs(again.frames[:, 8, 8, 0].astype(int) - range(20)).max() <= 2


def test_the_pixels_of_an_mp4_can_be_enlarged_and_of_nothing_else(tmp_path):
    clip = make_clip()
    clip.save(tmp_path / "large.mp4", enlarge=3)
    height, width = clip.frames.shape[1:3]
    assert Clip.load(tmp_path / "large.mp4").frames.shape[1:3] == (3 * height, 3 * width)
    with pytest.raises(ValueError, match=r"saved as \.mp4 where it is enlarged, got"):
        clip.save(tmp_path / "large.mkv", enlarge=3)
    with pytest.raises(ValueError, match="enlarge is a whole number from 1, got 0"):
        clip.save(tmp_path / "none.mp4", enlarge=0)
    assert [path.name for path in tmp_path.iterdir()] == ["large.mp4"]


def test_a_piece_is_loaded_at_the_wanted_rates_size_and_channels(tmp_path):
    path = tmp_path / "clip.mkv"
    make_clip(num_frames=60, frame_rate=Fraction(30)).save(path)
    piece = Clip.load(
        path,
        start=0.5,
        duration=1,
        frame_rate=10,
        sample_rate=8_000,
        num_channels=2,
        framing=Framing.center_square(8),
    )
    assert levels(piece) == [15, 18, 21, 24, 27, 30, 33, 36, 39, 42]
    assert piece.frames.shape[1:] == (8, 8, 3)
    assert piece.waveform.shape == (2, 8_000)
    # A ramp stays a ramp: sample n lies at 0.5 s + n / 8000.
    expected = (8_000 + 2 * np.arange(8_000)) / 2**20
    np.testing.assert_allclose(piece.waveform[0], expected, atol=2e-6)


def test_silent_videos_and_sounds_without_pictures_are_clips(hostile_folder, tmp_path):
    silent = Clip.load(hostile_folder["no_audio.mp4"])
    assert silent.waveform is None
    assert silent.num_frames == 20
    silent.save(tmp_path / "silent.mkv")
    assert np.array_equal(Clip.load(tmp_path / "silent.mkv").frames, silent.frames)
    with pytest.raises(ValueError, match="has no sound; save it as"):
        silent.save(tmp_path / "silent.wav")
    sound = Clip.load(hostile_folder["no_video.m4a"], duration=0.5)
    assert sound.frames is None
    assert sound.num_samples == 8_000
    assert sound.cut(0.1, 0.2).num_samples == 3_200
    assert sound.resample(sample_rate=8_000).num_samples == 4_000


def test_sound_shorter_than_the_video_is_followed_by_silence(hostile_folder):
    clip = Clip.load(hostile_folder["audio_ends_early.mp4"])
    assert clip.num_samples == 32_000
    assert clip.waveform[0, 10_000:15_000].any()
    assert not clip.waveform[0, 16_500:].any()


def test_pieces_that_follow_each_other_share_no_sample_and_leave_none_out():
    clip = make_clip(num_frames=30, frame_rate=Fraction(30_000, 1001), sample_rate=16_000)
    step = Fraction(1001, 30_000)
    pieces = [clip.cut(k * 3 * step, 3 * step) for k in range(10)]
    assert np.array_equal(np.concatenate([piece.frames for piece in pieces]), clip.frames)
    joined = np.concatenate([piece.waveform for piece in pieces], axis=1)
    assert np.array_equal(joined, clip.waveform)


def test_seconds_given_as_floats_mean_the_nearest_frame():
    piece = make_clip().cut(0.1 + 0.2, 1.1)  # 0.30000000000000004
    assert levels(piece) == list(range(3, 14))
    assert piece.waveform[0, 0] == np.float32(4_800 / 2**20)


@pytest.mark.parametrize(
    ("start_s", "duration_s"), [(-0.5, 1), (0, 0), (1.5, 1), (5, 1), (0, 0.01)]
)
def test_a_piece_outside_the_clip_or_empty_is_refused(start_s, duration_s):
    with pytest.raises(ValueError, match=r"not within the clip of 2\.000 s"):
        make_clip().cut(start_s, duration_s)


def test_another_frame_rate_shows_the_frame_of_that_time():
    clip = make_clip(num_frames=20, frame_rate=Fraction(25))
    slow = clip.resample(frame_rate=10)
    assert levels(slow) == [0, 2, 5, 7, 10, 12, 15, 17]
    assert slow.num_samples == 12_800
    assert levels(clip.resample(frame_rate=50)) == [k // 2 for k in range(40)]


def test_another_size_is_the_scaled_centre_and_mono_is_the_mean():
    clip = make_clip(size=(16, 32))
    waveform = np.concatenate([clip.waveform, 0 * clip.waveform])
    clip = Clip(clip.frames, waveform, clip.frame_rate, clip.sample_rate)
    assert clip.resample(size=(8, 8)).frames.shape == (20, 8, 8, 3)
    mono = clip.resample(num_channels=1)
    np.testing.assert_allclose(mono.waveform[0], clip.waveform[0] / 2, rtol=1e-6)


def test_to_tensors_and_back_gives_the_clip():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    waveform = rng.uniform(-1, 1, (1, 25_600)).astype(np.float32)
    clip = Clip(frames, waveform, Fraction(10), 16_000)
    av = clip.to_av(ClipSpec())
    assert av.video.shape == (1, 16, 3, 64, 64)
    assert av.audio.shape == (1, 1, 25_600)
    assert av.video[0, 3, 1, 20, 30].item() == pytest.approx(frames[3, 20, 30, 1] / 127.5 - 1)
    again = Clip.from_av(av, 10, 16_000)[0]
    assert np.array_equal(again.frames, frames)
    assert np.array_equal(again.waveform, waveform)


def test_a_longer_clip_gives_its_beginning():
    av = make_clip(num_frames=30, size=(64, 64)).to_av(ClipSpec())
    assert av.video.shape[1] == 16
    assert av.audio.shape[2] == 25_600


def test_values_beyond_the_range_are_clipped_and_counted(caplog):
    video = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).reshape(5, 1, 1, 1).expand(5, 3, 4, 4)[None]
    audio = torch.zeros(1, 1, 8_000)
    audio[0, 0, :7] = 2.0
    with caplog.at_level(logging.WARNING):
        clip = Clip.from_av(AV(video, audio), 10, 16_000)[0]
    assert "7 of 8000 samples exceed full scale, clipped; what is lost is -6 dB" in caplog.text
    assert levels(clip) == [0, 0, 128, 255, 255]
    assert clip.waveform.max() == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_rate": Fraction(25)}, "clip has frame_rate 10, the model takes 25"),
        ({"sample_rate": 8_000}, "sample_rate 16000, the model takes 8000"),
        ({"height": 32, "width": 32}, r"height, width \(64, 64\), the model takes \(32, 32\)"),
        ({"num_frames": 17}, "clip has frames 16, the model takes 17"),
        ({"num_channels": 2}, "channels 1, the model takes 2"),
    ],
)
def test_a_clip_that_does_not_fit_the_model_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_clip(num_frames=16, size=(64, 64)).to_av(ClipSpec(**change))


@pytest.mark.parametrize(
    ("frames", "waveform", "message"),
    [
        (None, None, "needs frames, a waveform or both"),
        (np.zeros((0, 8, 8, 3), np.uint8), None, "that is not empty"),
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 3_202), np.float32), "last 3200.0 samples"),
        (np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 3_198), np.float32), "cut or pad"),
    ],
)
def test_what_is_no_clip_is_refused(frames, waveform, message):
    with pytest.raises(ValueError, match=message):
        Clip(frames, waveform, Fraction(10), 16_000)


def test_a_clip_too_large_for_memory_is_refused_while_reading(hostile_folder, monkeypatch):
    monkeypatch.setattr("soundreel.media.decode.MAX_STACK_BYTES", 50_000)
    with pytest.raises(MediaError, match="load a shorter piece"):
        Clip.load(hostile_folder["no_audio.mp4"])


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"saved as \.mp4, \.mkv or \.wav, got '\.avi'"):
        make_clip().save(tmp_path / "clip.avi")
    with pytest.raises(ValueError, match="duration must be positive"):
        Clip.load(tmp_path / "clip.avi", duration=0)


def test_the_beginning_of_a_file_is_all_of_a_shorter_one(tmp_path):
    frames = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    waveform = np.linspace(-0.5, 0.5, 32_000, dtype=np.float32)[None]
    Clip(frames, waveform, Fraction(10), 16_000).save(tmp_path / "clip.mkv")
    begun = Clip.load_beginning(tmp_path / "clip.mkv", 0.5)
    assert np.array_equal(begun.frames, frames[:5])
    assert begun.num_samples == 8_000
    assert Clip.load_beginning(tmp_path / "clip.mkv", 60.0).num_frames == 20


def test_a_clip_is_short_in_text_and_plays_in_a_notebook(tmp_path):
    frames = np.zeros((8, 32, 48, 3), np.uint8)
    wave = np.zeros((1, 12_800), np.float32)
    clip = Clip(frames, wave, Fraction(10), 16_000)
    assert repr(clip) == (
        "Clip(0.8 s, frames (8, 32, 48, 3), waveform (1, 12800), 10 frames/s, 16000 Hz)"
    )
    shown = clip._repr_html_()
    head, data = shown.split("base64,")
    assert head == '<video controls loop width="256" src="data:video/mp4;'
    (tmp_path / "shown.mp4").write_bytes(base64.b64decode(data.split('"')[0]))
    assert Clip.load(tmp_path / "shown.mp4").num_frames == 8
    assert Clip(None, wave, Fraction(10), 16_000)._repr_html_().startswith("<audio controls")
    assert Clip(frames, wave[:, :5600], Fraction(10), 7000)._repr_html_().startswith("<video")


def test_the_package_shows_what_it_offers_and_renders_a_scene():
    assert {"load", "Clip", "render"} <= set(dir(soundreel))
    clip = soundreel.render("bells", seed=3, num_frames=4, height=16, width=16)
    assert clip.frames.shape == (4, 16, 16, 3)
    assert np.array_equal(
        clip.waveform, soundreel.render("bells", seed=3, num_frames=4, height=16, width=16).waveform
    )
    with pytest.raises(SoundreelError, match="no scenes called dogs; there are "):
        soundreel.render("dogs")
