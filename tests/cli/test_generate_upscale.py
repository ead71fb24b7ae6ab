"""`soundreel generate --upscale`: larger frames from what the base model made, unrounded."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from soundreel.checkpoints.store import ModelIndex, save_component, save_model_index
from soundreel.cli import generate as command
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.media.pixels import frames_to_video, video_to_frames
from soundreel.systems import load, load_upscaler
from soundreel.systems.super_resolution.network import SuperResolutionConfig, SuperResolutionUNet
from soundreel.systems.super_resolution.pipeline import UpscaleConfig

CONFIG = SuperResolutionConfig(
    low_res_size=16, size=32, width=32, channel_mult=(1, 2), num_res_blocks=1, attention_factors=()
)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    """The folder of a model that makes frames twice as large."""
    folder = tmp_path_factory.mktemp("upscaler") / "model"
    torch.manual_seed(0)
    network = SuperResolutionUNet(CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    save_component(folder, "super_resolution", network, CONFIG)
    components = {"super_resolution": "super-resolution"}
    save_model_index(folder, ModelIndex(system="mm-diffusion-sr", components=components))
    return folder


@pytest.fixture
def generate(small_run, tmp_path):
    def call(name: str, *flags: str) -> int:
        words = [str(small_run / "model"), "--out", str(tmp_path / name), "--num-steps", "2"]
        return run(["generate", *words, "--precision", "float32", *map(str, flags)])

    return call


def frames(path):
    return Clip.load(path).frames


def test_the_base_models_own_values_are_enlarged(generate, small_run, upscaler, tmp_path):
    flags = ("--seed", "5", "--count", "2", "--batch-size", "2", "--lossless")
    asked = ("--upscale", upscaler, "--upscale-num-steps", "2", "--upscale-precision", "float32")
    assert generate("large", *flags, *asked) == 0
    large = [frames(tmp_path / "large" / f"clip-000{seed}.mkv") for seed in (5, 6)]
    pipeline, larger = load(small_run / "model"), load_upscaler(upscaler)
    options = replace(pipeline.options, num_steps=2, precision="float32")
    noise = PerSampleNoise([5, 6])
    with torch.no_grad():
        values = pipeline.sample(noise(pipeline.template(2)), noise, options).video
    config = UpscaleConfig(num_steps=2, precision="float32")
    for row, made in enumerate(large):
        exact = video_to_frames(larger.upscale_video(values[row], seed=5 + row, config=config))
        assert np.abs(made.astype(int) - exact).max() <= 1
        small = pipeline.generate(seed=5 + row, num_steps=2, precision="float32")[0]
        rounded = larger.upscale_clip(small, seed=5 + row, num_steps=2, precision="float32").frames
        assert np.abs(made.astype(int) - rounded).max() > 1  # values beyond [-1, 1] were cut off
    facts = json.loads((tmp_path / "large" / "clip-0005.json").read_text())
    assert facts["upscaled_by"] == "model"
    assert facts["upscale_options"] == {
        "num_steps": 2,
        "batch_frames": 4,
        "clamp_low_res": False,
        "precision": "float32",
    }


def test_the_options_of_the_upscaler_take_effect(generate, upscaler, tmp_path):
    for name, flags in {
        "a": ("2",),
        "b": ("3",),
        "c": ("2", "--upscale-clamp-low-res", "True"),
    }.items():
        words = ("--count", "1", "--lossless", "--upscale", upscaler)
        assert generate(name, *words, "--upscale-num-steps", *flags) == 0
    a, b, c = (frames(tmp_path / name / "clip-0000.mkv") for name in "abc")
    assert (a != b).any()
    assert (a != c).any()


def test_films_are_enlarged_from_unrounded_frames_with_one_noise(
    generate, small_run, upscaler, tmp_path
):
    words = ("--count", "1", "--lossless", "--duration", "1.1", "--seed", "3")
    assert generate("small", *words) == 0
    assert generate("large", *words, "--upscale", upscaler, "--upscale-num-steps", "2") == 0
    small = Clip.load(tmp_path / "small" / "clip-0003.mkv")
    large = Clip.load(tmp_path / "large" / "clip-0003.mkv")
    assert large.frames.shape == (11, 32, 32, 3)
    assert (large.waveform == small.waveform).all()
    larger, options = load_upscaler(upscaler), {"num_steps": 2, "precision": "float32"}
    pieces = load(small_run / "model").stream(duration_s=1.1, seed=3, is_rounded=False, **options)
    made = [piece.frames for piece in pieces]
    whole = np.concatenate(made)
    assert (np.rint(whole).clip(0, 255) == small.frames).all()
    assert (whole != np.rint(whole)).mean() > 0.9
    exact = [larger.upscale_frames(frames_to_video(part), seed=3, num_steps=2) for part in made]
    assert (large.frames == np.concatenate(exact)).all()
    rounded = larger.upscale_clip(small, seed=3, num_steps=2)
    assert (large.frames != rounded.frames).any()


def test_the_upscaler_may_lie_on_the_hub(generate, upscaler, tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def snapshot_download(repo, **_):
        assert repo == "owner/larger"
        return shutil.copytree(upscaler, tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    words = ("--count", "1", "--upscale", "owner/larger", "--upscale-num-steps", "2")
    assert generate("out", *words) == 0
    assert frames(tmp_path / "out" / "clip-0000.mp4").shape == (4, 32, 32, 3)


def test_progress_is_told_of_both_models(generate, upscaler, monkeypatch):
    told = {}

    class Bars:
        def __enter__(self):
            return lambda title: (
                lambda done, total: told.setdefault(title, []).append((done, total))
            )

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(command, "progress_bars", Bars)
    words = ("--upscale", upscaler, "--upscale-num-steps", "2", "--upscale-batch-frames", "4")
    assert generate("out", "--count", "2", "--batch-size", "1", *words) == 0
    assert told == {
        "sampling": [(n, 4) for n in (1, 2, 3, 4)],
        "enlarging": [(1, 2), (2, 2), (1, 2), (2, 2)],
    }


def test_an_mp4_has_the_models_size_unless_it_is_to_be_enlarged(generate, tmp_path):
    assert generate("own", "--count", "1") == 0
    assert generate("large", "--count", "1", "--enlarge", "3") == 0
    assert generate("film", "--count", "1", "--enlarge", "2", "--duration", "0.6") == 0
    shapes = [frames(tmp_path / n / "clip-0000.mp4").shape for n in ("own", "large", "film")]
    assert shapes == [(4, 16, 16, 3), (4, 48, 48, 3), (6, 32, 32, 3)]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--upscale-num-steps", "2"), "--upscale-num-steps: of --upscale; give a super-"),
        (("--upscale", "UPSCALER", "--upscale-num-steps", "999"), "no stride cuts the chain"),
        (("--upscale", "UPSCALER", "--video", "a.mp4"), "--enlarge need --model-size"),
        (("--upscale", "absent"), "absent: no such model folder"),
        (("--enlarge", "0"), "--enlarge is a whole number from 1, for MP4 files, got 0"),
        (("--enlarge", "2", "--lossless"), "got 2 with --lossless"),
    ],
)
def test_what_has_no_effect_is_refused(generate, upscaler, flags, words, tmp_path, capsys):
    flags = [str(upscaler) if flag == "UPSCALER" else flag for flag in flags]
    assert generate("out", *flags) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
