"""`soundreel generate` on a small model."""

import pytest

from soundreel.cli.main import run
from soundreel.clip import Clip


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


@pytest.mark.parametrize("flags", [("--count", "0"), ("--sampler", "euler"), ("--num-steps", "-1")])
def test_a_wrong_value_is_exit_code_2_and_nothing_is_written(generate, flags, tmp_path, capsys):
    assert generate("out", *flags) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()
