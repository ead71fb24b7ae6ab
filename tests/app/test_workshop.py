"""What the page can do, without the page: limits, refusals, cancelling, files."""

import itertools
import threading
import time
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.app.turns import CancelledError
from soundreel.app.uploads import Limits, UploadError
from soundreel.app.workshop import Workshop
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline


def test_a_clip_comes_as_files_and_says_what_made_it(workshop):
    seen = []
    made = workshop.generate("anna", seed=5, num_steps=2, progress=lambda *x: seen.append(x))
    assert Clip.load(made.clip).num_frames == 4
    assert made.sheet.is_file()
    assert made.gif.read_bytes()[:3] == b"GIF"
    assert made.about == "seed 5, steps 2"
    assert seen[-1][0] == seen[-1][1]


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_a_video_comes_back_as_it_was_with_a_sound_of_its_length(workshop, video):
    made = workshop.film("anna", video=video, num_steps=1, guidance_weight=0.0)
    assert packets(made.clip, "video") == packets(video, "video")
    clip = Clip.load(made.clip)
    assert (clip.frames.shape[:3], clip.frame_rate) == ((50, 32, 32), 25)
    assert clip.num_samples == 2 * clip.sample_rate == 32_000
    assert made.gif is None, "the sound is what is new"

    part = workshop.film(
        "anna", video=video, start_s=0.4, duration_s=0.8, num_steps=1, guidance_weight=0.0
    )
    clip = Clip.load(part.clip)
    assert (clip.num_frames, clip.num_samples) == (20, 12_800)
    assert abs(float(clip.frames[0].mean()) - float(Clip.load(video).frames[10].mean())) < 3

    small = workshop.film(
        "anna", video=video, duration_s=0.8, is_model_size=True, num_steps=1, guidance_weight=0.0
    )
    assert (Clip.load(small.clip).num_frames, Clip.load(small.clip).frame_rate) == (8, 10)


def test_a_sound_is_kept_and_gets_pictures_of_its_length(workshop, video):
    made = workshop.film("anna", audio=video, start_s=0.4, num_steps=1, guidance_weight=0.0)
    clip, source = Clip.load(made.clip), Clip.load(video)
    assert (clip.num_frames, clip.num_samples) == (16, 25_600)
    assert np.corrcoef(clip.waveform[0], source.waveform[0][6_400:])[0, 1] > 0.9
    assert made.gif.is_file()


def test_a_film_is_as_long_as_asked_and_says_what_made_it(workshop):
    made = workshop.film("anna", duration_s=1.0, num_steps=1, seed=3)
    clip = Clip.load(made.clip)
    assert (clip.num_frames, clip.num_samples) == (10, 16_000)
    assert made.about == "seed 3, steps 1"
    assert made.gif.is_file()


def test_a_film_goes_on_from_an_upload(workshop, video):
    asked = {"after": video, "duration_s": 2.3, "num_steps": 1}
    clip, source = Clip.load(workshop.film("anna", **asked).clip), Clip.load(video)
    assert (clip.num_frames, clip.num_samples) == (23, 36_800)
    small = source.resample(size=(16, 16))
    for index in (0, 19):  # at 10 and at 25 frames a second
        kept, given = clip.frames[index], small.frames[index * 5 // 2]
        assert np.corrcoef(kept.ravel(), given.ravel())[0, 1] > 0.9
    heard = workshop.film("anna", **asked, modality="audio")
    assert not heard.has_picture
    assert Clip.load(heard.clip).frames is None
    seen = workshop.film("anna", **asked, modality="video")
    assert Clip.load(seen.clip).waveform is None


def test_a_film_that_is_cancelled_is_a_whole_file_of_what_was_made(workshop):
    told, done = [], []

    def progress(number: int, total: int) -> None:
        told.append((number, total))
        if number:
            started.set()
            assert resumed.wait(60)

    started, resumed = threading.Event(), threading.Event()
    work = threading.Thread(
        target=lambda: done.append(
            workshop.film("anna", duration_s=3.0, num_steps=1, progress=progress)
        )
    )
    work.start()
    assert started.wait(60)
    cancel = threading.Thread(target=lambda: done.append(workshop.cancel("anna")))
    cancel.start()
    while not workshop._turns._works["anna"].stop.is_set():
        time.sleep(0.01)
    resumed.set()
    work.join(60)
    cancel.join(60)
    made, returned = done
    assert made is returned
    clip = Clip.load(made.clip)
    assert clip.num_frames == told[-1][0] < 30 == told[-1][1]
    assert clip.num_samples == clip.num_frames * 1_600
    assert made.about.endswith("stopped early")
    assert sorted(path.name for path in made.clip.parent.iterdir()) == [
        "contact-sheet.png", "soundreel.gif", "soundreel.mp4",
    ]  # fmt: skip


def test_memory_does_not_grow_with_the_length_of_a_film(workshop, monkeypatch):
    pieces, alive = [], []
    stream = MMDiffusionPipeline.stream

    def watched(self, **asked):
        for piece in stream(self, **asked):
            pieces.append(weakref.ref(piece.frames))
            alive.append(sum(reference() is not None for reference in pieces))
            yield piece

    monkeypatch.setattr(MMDiffusionPipeline, "stream", watched)
    workshop.film("anna", duration_s=2.4, num_steps=1)
    assert len(alive) > 7
    assert max(alive) <= 3


def test_frames_are_enlarged(workshop, video, tmp_path):
    small = Clip.load(video).resample(size=(64, 64)).cut(0, 0.16)
    small.save(tmp_path / "small.mkv")
    made = workshop.upscale("anna", str(tmp_path / "small.mkv"), num_steps=2)
    assert Clip.load(made.clip).frames.shape[1:3] == (128, 128)


def test_sync_is_measured_and_drawn(workshop, video):
    result, drawing = workshop.measure(video)
    assert result.offset_s == pytest.approx(0, abs=0.04)
    assert drawing.startswith("<svg ")


def test_what_is_too_much_is_refused_in_words(workshop, video, tmp_path, pipeline):
    full = Workshop(pipeline, tmp_path, limits=Limits(stored_mb=1e-6))
    (tmp_path / "kept").write_bytes(bytes(10))
    with pytest.raises(UploadError, match="used up; try again in an hour"):
        full.generate("anna", num_steps=1)
    (tmp_path / "heavy.mp4").write_bytes(bytes(1_100_000))
    with pytest.raises(UploadError, match="has 1 MB; at most 1"):
        workshop.film("anna", video=str(tmp_path / "heavy.mp4"))
    (tmp_path / "broken.mp4").write_bytes(bytes(1000))
    with pytest.raises(UploadError, match="cannot be read") as error:
        workshop.film("anna", video=str(tmp_path / "broken.mp4"))
    assert str(tmp_path) not in str(error.value), "visitors need not know our folders"
    short = Workshop(pipeline, tmp_path, limits=Limits(duration_s=1.0))
    with pytest.raises(UploadError, match="lasts 2 s; at most 1 s"):
        short.measure(video)
    with pytest.raises(UploadError, match="lasts 2 s; at most 1 s are taken, so choose a part"):
        short.film("anna", video=video, start_s=0.5)
    with pytest.raises(UploadError, match=r"lasts 2\.0 s; begin before its end"):
        workshop.film("anna", video=video, start_s=2.0)
    with pytest.raises(SoundreelError, match="is not within it"):
        workshop.film("anna", video=video, start_s=1.5, duration_s=1.0)
    for length in (0.0, 4.5):
        with pytest.raises(UploadError, match="at most 4 s here"):
            workshop.film("anna", duration_s=length)
    with pytest.raises(UploadError, match="give the length"):
        workshop.film("anna", after=video)
    tight = Workshop(pipeline, tmp_path, limits=Limits(decoded_gb=1e-4))
    with pytest.raises(UploadError, match="32x32 pixels for so long"):
        tight.film("anna", after=video, duration_s=3.0)
    mute = Clip(Clip.load(video).frames, None, Fraction(25))
    mute.save(tmp_path / "mute.mp4")
    with pytest.raises(UploadError, match="no sound"):
        workshop.film("anna", audio=str(tmp_path / "mute.mp4"))
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


def test_a_live_film_is_made_piece_by_piece_and_plays_from_its_beginning(workshop, tmp_path):
    begin, about = workshop.live(seed=3, num_steps=1, guidance_weight=0.0)
    film = begin()
    assert about == "seed 3, steps 1, guidance weight 0.0"
    pieces = list(itertools.islice(film, 4))
    film.close()
    assert all(pieces)
    path = tmp_path / "live.mp4"
    path.write_bytes(b"".join(pieces))
    live = Clip.load(path)
    whole = workshop.film("anna", duration_s=2, seed=3, num_steps=1, guidance_weight=0.0)
    assert live.num_frames > 8
    assert np.array_equal(live.frames, Clip.load(whole.clip).frames[: live.num_frames])
    with pytest.raises(SoundreelError, match="num_steps"):
        workshop.live(num_steps=0)


def test_two_live_films_and_a_clip_take_turns(workshop):
    first, second = (workshop.live(seed=seed, num_steps=1)[0]() for seed in (0, 1))
    assert next(first)
    assert next(second)
    assert workshop.generate("somebody", num_steps=1).clip.is_file()
    assert next(first)
