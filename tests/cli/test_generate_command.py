"""`soundreel generate` on a small model."""

import json

import av
import pytest

from soundreel.cli.main import run
from soundreel.clip import Clip
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
        (("--guidance-scale", "2"), "unknown option guidance_scale; this model takes audio, video"),
        (("--class", "dog"), "this model has no classes"),
        (("--text", "a dog"), "trained without captions"),
        (("--video", "a.mp4", "--audio", "b.wav"), "--video and --audio are both given"),
        (("--device", "tpu"), "device 'tpu' does not exist here; one of cpu"),
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
