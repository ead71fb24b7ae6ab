"""`soundreel generate` on a small model."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.film_file import FilmRequest, check_film
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline


@pytest.fixture
def generate(small_run, tmp_path):
    def call(name: str, *flags: str) -> int:
        arguments = [str(small_run / "model"), "--out", str(tmp_path / name), "--num-steps", "2"]
        return run(["generate", *arguments, "--lossless", *flags])

    return call


def test_clips_and_a_contact_sheet_are_written(generate, tmp_path, capsys):
    assert generate("out", "--count", "2", "--seed", "7") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *(f"clip-000{seed}{end}" for seed in (7, 8) for end in (".mkv", ".json")),
        "contact-sheet.png",
    }
    assert str(tmp_path / "out") in capsys.readouterr().out
    clip = Clip.load(tmp_path / "out" / "clip-0007.mkv")
    assert clip.frames.shape == (4, 16, 16, 3)
    assert clip.waveform.shape == (1, 3_200)


def test_a_seed_gives_the_same_clip_whatever_the_count(generate, tmp_path):
    generate("one", "--count", "1", "--seed", "5")
    generate("many", "--count", "3", "--seed", "3", "--batch-size", "3")
    one, same = (Clip.load(tmp_path / d / "clip-0005.mkv") for d in ("one", "many"))
    other = Clip.load(tmp_path / "many" / "clip-0004.mkv")
    assert (one.frames == same.frames).all()
    assert (one.waveform == same.waveform).all()
    assert (one.frames != other.frames).any()


def test_the_sampler_takes_effect(generate, tmp_path):
    generate("default", "--count", "1")
    generate("ddim", "--count", "1", "--sampler", "ddim")
    first, second = (Clip.load(tmp_path / d / "clip-0000.mkv") for d in ("default", "ddim"))
    assert (first.frames != second.frames).any()


def test_each_clip_says_how_it_was_made_beside_it_and_in_the_file(generate, tmp_path):
    assert generate("out", "--count", "1", "--seed", "4", "--sampler", "ddim") == 0
    facts = json.loads((tmp_path / "out" / "clip-0004.json").read_text())
    assert facts["seed"] == 4
    assert facts["model"] == "model"
    assert facts["options"] == {
        "num_steps": 2,
        "sampler": "ddim",
        "guidance_weight": 2.0,
        "guidance_rule": "reconstruction",
        "official_scale": 3.0,
        "precision": "float32",
    }
    with av.open(str(tmp_path / "out" / "clip-0004.mkv")) as container:
        tags = {name.lower(): value for name, value in container.metadata.items()}
    assert json.loads(tags["comment"]) == facts


def test_nothing_is_overwritten_unasked_and_no_old_clip_lies_beside_a_new_sheet(
    generate, tmp_path, capsys
):
    out = tmp_path / "out"
    generate("out", "--count", "2")
    before = (out / "clip-0000.mkv").read_bytes()
    assert generate("out", "--count", "1", "--seed", "9") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "clip-0000.mkv").read_bytes() == before
    (out / "mine.mkv").write_bytes(b"kept")
    assert generate("out", "--count", "1", "--seed", "9", "--overwrite") == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"clip-0009.mkv", "clip-0009.json", "contact-sheet.png", "mine.mkv"}


def test_clips_that_are_finished_stay_when_the_command_is_stopped(generate, tmp_path, monkeypatch):
    sample, calls = MMDiffusionPipeline.generate, []

    def stopped(self, **request):
        calls.append(request["seed"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, **request)

    monkeypatch.setattr(MMDiffusionPipeline, "generate", stopped)
    assert generate("out", "--count", "5", "--batch-size", "1") == 130
    names = {path.name for path in (tmp_path / "out").glob("*.mkv")}
    assert names == {"clip-0000.mkv", "clip-0001.mkv"}
    assert (tmp_path / "out" / "contact-sheet.png").is_file()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--count", "0"), "count and batch_size start at 1"),
        (("--sampler", "euler"), "sampler is one of"),
        (("--num-steps", "0"), "num_steps must be at least 1, got 0"),
        (("--seed", "-1"), "seed is a whole number from 0"),
        (("--guidance-weight", "-2"), "guidance_weight must be at least 0"),
        (("--guidance-scale", "2"), "unknown option guidance_scale; this model takes after, audio"),
        (("--class", "dog"), "this model has no classes"),
        (("--text", "a dog"), "trained without captions"),
        (("--video", "a.mp4", "--audio", "b.wav"), "--video and --audio exclude each other"),
        (("--after", "a.mp4"), "give the length of the film (--duration)"),
        (("--between", "a.mp4", "b.mp4"), "this model cannot be given between"),
        (("--between", "a", "b", "--after", "c"), "--after and --between exclude each other"),
        (("--duration", "2", "--modality", "audio"), "--modality chooses what of --after goes on"),
        (("--join", "butt"), "--modality and --join are of films"),
        (("--model-size",), "--model-size is of --video or --audio"),
        (("--start", "2"), "--start is a place in --video or --audio"),
        (("--duration", "0.01"), "holds no frame"),
        (("--device", "tpu"), "device 'tpu' does not exist here; one of cpu"),
        (("--guidance-rule", "official"), "steers by a whole given video or audio"),
        (("--guidance-rule", "official", "--duration", "2"), "steers by a whole given video"),
        (("--guidance-rule", "official", "--video", "a.mp4"), "is defined for sampler ddpm"),
        (("--precision", "half"), "precision is one of auto, float32, bfloat16"),
    ],
)
def test_a_wrong_value_is_one_line_before_any_work(generate, flags, words, tmp_path, capsys):
    assert generate("out", *flags) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_in_place_of_its_model_is_told_where_the_model_is(small_run, tmp_path, capsys):
    assert run(["generate", str(small_run), "--out", str(tmp_path / "out")]) == 2
    assert f"its model is {small_run / 'model'}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_before_the_model_is_read(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert run(["generate", "absent", "--out", str(tmp_path / "file" / "deep")]) == 2
    assert "cannot write in" in capsys.readouterr().err


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


@pytest.fixture
def talk(tmp_path):
    """A video of its own size, rate and length."""
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (17, 24, 40, 3), np.uint8)
    sound = (0.1 * generator.normal(size=(1, 30_000))).astype(np.float32)
    path = tmp_path / "talk.mp4"
    Clip(frames, sound[:, : 17 * 22_050 // 20], Fraction(20), 22_050).save(path)
    return path


def test_a_film_has_the_length_that_is_asked_for(generate, tmp_path):
    assert generate("out", "--count", "2", "--duration", "0.9", "--seed", "3") == 0
    clip = Clip.load(tmp_path / "out" / "clip-0003.mkv")
    assert (clip.num_frames, clip.num_samples) == (9, 7_200)
    facts = json.loads((tmp_path / "out" / "clip-0004.json").read_text())
    assert (facts["seed"], facts["duration_s"], facts.get("join")) == (4, 0.9, None)
    assert not list((tmp_path / "out").glob("*.part.*"))


def test_a_video_keeps_its_picture_and_gets_a_sound_of_its_length(small_run, tmp_path, talk):
    out = tmp_path / "out"
    words = [str(small_run / "model"), "--num-steps", "2", "--count", "1", "--video", str(talk)]
    assert run(["generate", *words, "--out", str(out)]) == 0
    film = out / "clip-0000.mp4"
    assert packets(film, "video") == packets(talk, "video")
    clip = Clip.load(film)
    assert (clip.num_frames, clip.frame_rate, clip.sample_rate) == (17, 20, 8_000)
    assert clip.num_samples == 6_800
    assert run(["generate", *words, "--out", str(tmp_path / "small"), "--model-size"]) == 0
    small = Clip.load(tmp_path / "small" / "clip-0000.mp4")
    assert (small.num_frames, small.frame_rate) == (9, 10)


def test_the_published_rule_of_guidance_is_chosen_by_name(generate, tmp_path, talk):
    words = ("--count", "1", "--audio", str(talk), "--duration", "0.8", "--sampler", "ddpm")
    assert generate("own", *words) == 0
    assert generate("out", *words, "--guidance-rule", "official") == 0
    own, official = (Clip.load(tmp_path / d / "clip-0000.mkv").frames for d in ("own", "out"))
    assert official.shape == (8, 16, 16, 3)
    assert (own != official).any()
    facts = json.loads((tmp_path / "out" / "clip-0000.json").read_text())["options"]
    assert (facts["guidance_rule"], facts["official_scale"]) == ("official", 3.0)


def test_a_part_of_a_sound_gets_pictures(generate, tmp_path, talk):
    words = ("--audio", str(talk), "--start", "0.2", "--duration", "0.5", "--count", "1")
    assert generate("out", *words) == 0
    clip = Clip.load(tmp_path / "out" / "clip-0000.mkv")
    assert (clip.num_frames, clip.sample_rate, clip.num_samples) == (5, 22_050, 11_025)


def test_a_whole_sound_is_kept_bit_for_bit_under_pictures_of_its_length(generate, tmp_path):
    sound = (0.1 * np.random.default_rng(0).normal(size=(1, 9_900))).astype(np.float32)
    Clip(None, sound, sample_rate=11_025).save(tmp_path / "song.wav")
    assert generate("out", "--audio", str(tmp_path / "song.wav"), "--count", "1") == 0
    film, song = tmp_path / "out" / "clip-0000.mkv", tmp_path / "song.wav"
    assert b"".join(packets(film, "audio")) == b"".join(packets(song, "audio"))
    clip = Clip.load(film)
    assert (clip.num_frames, clip.sample_rate) == (9, 11_025)
    assert np.array_equal(clip.waveform[:, :9_900], Clip.load(song).waveform)


def test_a_part_of_a_video_keeps_its_size_and_rate(generate, tmp_path, talk):
    words = ("--video", str(talk), "--start", "0.2", "--duration", "0.5", "--count", "1")
    assert generate("out", *words) == 0
    clip = Clip.load(tmp_path / "out" / "clip-0000.mkv")
    assert (clip.frames.shape, clip.frame_rate) == ((10, 24, 40, 3), 20)
    assert np.array_equal(clip.frames, Clip.load(talk).frames[4:14])
    assert clip.num_samples == 4_000


def test_ctrl_c_leaves_the_part_of_a_film_that_was_made(generate, tmp_path, monkeypatch):
    stream = MMDiffusionPipeline.stream

    def stopped(self, **request):
        for number, piece in enumerate(stream(self, **request)):
            if number == 2:
                raise KeyboardInterrupt
            yield piece

    assert generate("whole", "--count", "1", "--duration", "2", "--join", "butt") == 0
    monkeypatch.setattr(MMDiffusionPipeline, "stream", stopped)
    assert generate("out", "--count", "1", "--duration", "2", "--join", "butt") == 130
    assert not list((tmp_path / "out").glob("*.part.*"))
    made, whole = (Clip.load(tmp_path / d / "clip-0000.mkv") for d in ("out", "whole"))
    assert 0 < made.num_frames < whole.num_frames == 20
    assert made.num_samples == made.num_frames * 800
    assert (made.frames == whole.frames[: made.num_frames]).all()
    assert (made.waveform == whole.waveform[:, : made.num_samples]).all()
    assert json.loads((tmp_path / "whole" / "clip-0000.json").read_text())["join"] == "butt"


def test_a_film_goes_on_from_a_clip(generate, tmp_path):
    assert generate("first", "--count", "1", "--duration", "0.5") == 0
    first = tmp_path / "first" / "clip-0000.mkv"
    assert generate("next", "--count", "1", "--after", str(first), "--duration", "1.2") == 0
    clip, longer = Clip.load(first), Clip.load(tmp_path / "next" / "clip-0000.mkv")
    assert longer.num_frames == 12
    assert (longer.frames[:5] == clip.frames).all()
    assert (longer.waveform[:, :4_000] == clip.waveform).all()
    words = ("--count", "1", "--after", str(first), "--duration", "1.2", "--modality", "audio")
    assert generate("sound", *words) == 0
    sound = Clip.load(tmp_path / "sound" / "clip-0000.mkv")
    assert (sound.frames is None, sound.num_samples) == (True, 9_600)


def test_a_model_that_makes_no_films_is_asked_for_whole_clips():
    class Pipeline:
        conditions = frozenset(("video", "after"))

    asked = FilmRequest(video=Path("talk.mp4"), duration=Fraction(3))
    assert check_film(asked, Pipeline()) is None
    assert asked.whole == {"video": Path("talk.mp4"), "duration_s": 3}
    with pytest.raises(SoundreelError, match="cannot be given audio"):
        check_film(FilmRequest(audio=Path("song.wav")), Pipeline())
    for changes in ({"start": Fraction(1)}, {"is_model_size": True}, {"join": "butt"}):
        with pytest.raises(SoundreelError, match="no --start"):
            check_film(FilmRequest(video=Path("talk.mp4"), **changes), Pipeline())
