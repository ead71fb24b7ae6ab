"""`soundreel import`, `export` and `upscale` as a user runs them."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from soundreel.checkpoints.store import ModelIndex, save_component, save_model_index
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)

CONFIG = SuperResolutionConfig(
    low_res_size=8, size=32, width=32, channel_mult=(1, 2), num_res_blocks=1, attention_factors=()
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = SuperResolutionUNet(CONFIG)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network


@pytest.fixture
def model(tmp_path, network):
    folder = tmp_path / "model"
    save_component(folder, "super_resolution", network, CONFIG)
    components = {"super_resolution": "super-resolution"}
    save_model_index(folder, ModelIndex(system="mm-diffusion", components=components))
    return folder


@pytest.fixture
def clip(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    sound = np.random.default_rng(1).uniform(-0.9, 0.9, (1, 6400)).astype(np.float32)
    made = Clip(frames, sound, Fraction(10), 16_000)
    made.save(tmp_path / "clip.mkv")
    return tmp_path / "clip.mkv"


def failure(capsys, *arguments):
    assert run([str(argument) for argument in arguments]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1, line
    return line


def test_upscale_enlarges_and_keeps_the_sound(tmp_path, model, clip, capsys):
    out = tmp_path / "large"
    arguments = ["upscale", clip, "--model", model, "--out", out, "--num-steps", "2", "--lossless"]
    assert run([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr().out.strip() == str(out / "clip.mkv")
    large, small = Clip.load(out / "clip.mkv"), Clip.load(clip)
    assert large.frames.shape == (4, 32, 32, 3)
    np.testing.assert_array_equal(large.waveform, small.waveform)


def test_upscale_never_overwrites_what_it_reads(tmp_path, model, clip, capsys):
    before = clip.read_bytes()
    line = failure(capsys, "upscale", clip, "--model", model, "--out", tmp_path, "--lossless")
    assert "would be overwritten" in line
    assert clip.read_bytes() == before
    line = failure(capsys, "upscale", clip, clip, "--model", model, "--out", tmp_path / "out")
    assert "another clip is written to" in line


def test_upscale_names_bad_input(tmp_path, model, clip, capsys):
    out = tmp_path / "out"
    assert "no such model folder" in failure(
        capsys, "upscale", clip, "--model", tmp_path / "absent" / "x" / "y", "--out", out
    )
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    assert "broken.mp4" in failure(capsys, "upscale", broken, "--model", model, "--out", out)
    for steps, words in (("999", "no stride cuts"), ("0", "num_steps must be at least 1, got 0")):
        line = failure(
            capsys, "upscale", clip, "--model", model, "--out", out, "--num-steps", steps
        )
        assert words in line
    assert not out.exists()


def test_import_and_export_round_trip(tmp_path, network, capsys):
    path = tmp_path / "Landscape_SR.pt"
    torch.save(dict(network.state_dict()), path)
    sizes = ["--low-res-size", "8", "--large-size", "32"]
    assert run(["import", "mm-diffusion", str(path), str(tmp_path / "imported"), *sizes]) == 0
    printed = capsys.readouterr().out
    assert f"{sum(p.numel() for p in network.parameters()):,} parameters" in printed
    assert run(["export", str(tmp_path / "imported"), str(tmp_path / "official")]) == 0
    state = torch.load(tmp_path / "official" / "super_resolution.pt", weights_only=True)
    assert state.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(state[key], value), key


def test_import_names_bad_files_and_writes_nothing(tmp_path, network, capsys):
    path = tmp_path / "SR.pt"
    torch.save(dict(network.state_dict()), path)
    path.write_bytes(path.read_bytes()[:5000])
    line = failure(capsys, "import", "mm-diffusion", path, tmp_path / "imported")
    assert str(path) in line
    torch.save({"unrelated": torch.zeros(2)}, path)
    line = failure(capsys, "import", "stable-diffusion", path, tmp_path / "imported")
    assert "neither Stable Diffusion's autoencoder nor its U-Net" in line
    line = failure(capsys, "import", "mm-diffusion", path)
    assert "give the checkpoint files and, last, the folder to make" in line
    assert [p.name for p in tmp_path.iterdir()] == ["SR.pt"]
