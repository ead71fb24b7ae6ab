"""What the page can do, without the page: limits, refusals, cancelling, files."""

import threading
from fractions import Fraction

import numpy as np
import pytest

from soundreel.app.workshop import CancelledError, Limits, UploadError, Workshop
from soundreel.clip import Clip


def test_a_clip_comes_as_files_and_says_what_made_it(workshop):
    seen = []
    made = workshop.generate("anna", seed=5, num_steps=2, progress=lambda *x: seen.append(x))
    assert Clip.load(made.clip).num_frames == 4
    assert made.sheet.is_file()
    assert made.gif.read_bytes()[:3] == b"GIF"
    assert made.about == "seed 5, steps 2"
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize("given", ["video", "audio"])
def test_an_upload_is_kept_in_the_result(workshop, video, given):
    made = workshop.generate("anna", **{given: video}, num_steps=2, guidance_weight=0.0)
    clip, source = Clip.load(made.clip), Clip.load(video)
    if given == "video":
        assert abs(clip.frames[0].mean() - source.frames[0].mean()) < 12
    else:
        sounds = clip.waveform[0], source.waveform[0][: clip.num_samples]
        assert np.corrcoef(*sounds)[0, 1] > 0.9


def test_frames_are_enlarged(workshop, video, tmp_path):
    small = Clip.load(video).resample(size=(64, 64)).cut(0, 0.16)
    small.save(tmp_path / "small.mkv")
    made = workshop.upscale("anna", str(tmp_path / "small.mkv"), num_steps=2)
    assert Clip.load(made.clip).frames.shape[1:3] == (128, 128)


def test_sync_is_measured_and_drawn(workshop, video):
    result, drawing = workshop.measure(video)
    assert result.offset_s == pytest.approx(0, abs=0.04)
    assert drawing.read_text().startswith("<svg") or "<svg" in drawing.read_text()


def test_what_is_too_much_is_refused_in_words(workshop, video, tmp_path, pipeline):
    full = Workshop(pipeline, tmp_path, limits=Limits(stored_mb=1e-6))
    (tmp_path / "kept").write_bytes(bytes(10))
    with pytest.raises(UploadError, match="used up; try again in an hour"):
        full.generate("anna", num_steps=1)
    (tmp_path / "heavy.mp4").write_bytes(bytes(1_100_000))
    with pytest.raises(UploadError, match="has 1 MB; at most 1"):
        workshop.generate("anna", video=str(tmp_path / "heavy.mp4"))
    (tmp_path / "broken.mp4").write_bytes(bytes(1000))
    with pytest.raises(UploadError, match="cannot be read") as error:
        workshop.generate("anna", video=str(tmp_path / "broken.mp4"))
    assert str(tmp_path) not in str(error.value), "visitors need not know our folders"
    short = Workshop(pipeline, tmp_path, limits=Limits(duration_s=1.0))
    with pytest.raises(UploadError, match="lasts 2 s; at most 1 s"):
        short.measure(video)
    tight = Workshop(pipeline, tmp_path, limits=Limits(decoded_gb=1e-4))
    with pytest.raises(UploadError, match="128x128 pixels for so long"):
        tight.measure(video)
    mute = Clip(Clip.load(video).frames, None, Fraction(25))
    mute.save(tmp_path / "mute.mp4")
    with pytest.raises(UploadError, match="no sound"):
        workshop.generate("anna", audio=str(tmp_path / "mute.mp4"))
    with pytest.raises(UploadError, match="no sound"):
        workshop.measure(str(tmp_path / "mute.mp4"))
    frames = np.zeros((2, 800, 800, 3), np.uint8)
    Clip(frames, None, Fraction(10)).save(tmp_path / "large.mkv")
    with pytest.raises(UploadError, match="1600x1600"):
        workshop.upscale("anna", str(tmp_path / "large.mkv"), num_steps=2)
    with pytest.raises(ValueError, match="--upscaler"):
        short.upscale("anna", video)


def test_one_visitor_stops_without_stopping_the_other(workshop):
    started, done = threading.Event(), []

    def slow(*_: int) -> None:
        started.set()

    def work() -> None:
        try:
            workshop.generate("anna", num_steps=100, progress=slow)
        except CancelledError:
            done.append("cancelled")

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(60)
    workshop.cancel("berta")
    workshop.cancel("anna")
    thread.join(60)
    assert done == ["cancelled"]
    workshop.generate("anna", num_steps=2)


def test_limits_are_positive():
    with pytest.raises(ValueError, match="stored_mb must be positive"):
        Limits(stored_mb=0.0)


def test_the_example_is_made_once(workshop):
    first = workshop.example()
    assert workshop.example() is first
    first.clip.unlink()
    assert workshop.example().clip.is_file(), "made anew when old files were deleted"
