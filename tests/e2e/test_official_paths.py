"""The documented paths from published weights, line by line, on files of official names and layout.

The weights are random and the networks small; the lines are those of the pages, with the sizes as
further flags.
"""

import re
import shlex
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import soundreel
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.official_keys import to_official as official_base
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.official_keys import signal_decoder_rules, to_official
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoder
from soundreel.systems.mm_ldm.stable_diffusion_folder import (
    StableDiffusionSizes,
    import_stable_diffusion,
)
from soundreel.systems.mm_ldm.stable_diffusion_keys import kl_vae_diffusers_rules
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.systems.super_resolution.network import SuperResolutionConfig, SuperResolutionUNet

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BASE = CoupledUNetConfig(width=32, channel_mult=(1, 1, 2, 2), num_res_blocks=1, cross_head_width=16)
UPSAMPLER = SuperResolutionConfig(
    low_res_size=32, size=64, width=32, channel_mult=(1, 1), num_res_blocks=1, attention_factors=()
)
TWO_STEPS = "--train.total-samples 2 --train.global-batch-size 1 --train.micro-batch-size 1"
QUIET = "--train.preview-every 0 --train.ema-decay 0.5"
FLAGS = {
    "import": "--size 32 --cross-head-width 16 --low-res-size 32 --large-size 64",
    "train mm-diffusion-landscape": (
        "--clip.height 32 --clip.width 32 --unet.width 32 --unet.channel-mult 1 1 2 2 "
        f"--unet.num-res-blocks 1 --unet.cross-head-width 16 {TWO_STEPS} {QUIET}"
    ),
    "train mm-diffusion-sr": (
        "--network.low-res-size 32 --network.size 64 --network.width 32 --network.channel-mult 1 1 "
        "--network.num-res-blocks 1 --network.attention-factors --degradation.low-res-size 32 "
        f"{TWO_STEPS} {QUIET}"
    ),
    "generate": "--count 1 --num-steps 2 --upscale-num-steps 2",
    "export": "",
}


def documented() -> list[str]:
    """Return the lines of the page's path from published weights, each a whole command."""
    (block,) = [
        text
        for text in re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "import mm-diffusion" in text
    ]
    return block.replace("\\\n", " ").strip().splitlines()


def prepared(folder: Path, size: int) -> None:
    """Make a data set of two videos at `folder`."""
    rng = np.random.default_rng(size)
    videos = folder.parent / f"videos-{size}"
    for index in range(2):
        frames = rng.integers(0, 256, (17, size, size, 3), dtype=np.uint8)
        sound = (0.3 * rng.standard_normal((1, 27_200))).clip(-1, 1).astype(np.float32)
        videos.mkdir(parents=True, exist_ok=True)
        Clip(frames, sound, Fraction(10), 16_000).save(videos / f"{index}.mkv")
    sizes = ["--height", str(size), "--width", str(size), "--workers", "0"]
    assert run(["prepare", str(videos), str(folder), *sizes]) == 0


def train(*words: str) -> None:
    """Train in a process of its own, without the checks of types that tests make."""
    command = [sys.executable, "-m", "soundreel", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def randomised(network: nn.Module) -> nn.Module:
    """Give every weight a value, those that begin as zero included."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.slow
def test_the_path_from_published_mm_diffusion_and_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = official_base(randomised(CoupledUNet(BASE)).state_dict())
    upsampler = randomised(SuperResolutionUNet(UPSAMPLER)).state_dict()
    torch.save(dict(base), "Landscape.pt")
    torch.save(dict(upsampler), "Landscape_SR.pt")
    prepared(tmp_path / "data" / "64", 32)
    prepared(tmp_path / "data" / "256", 64)
    lines = documented()
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "soundreel"
        name = next(n for n in (f"{words[0]} {words[1]}", words[0]) if n in FLAGS)
        words += shlex.split(FLAGS[name])
        if words[0] == "train":
            train(*words[1:])
        else:
            assert run(words) == 0, line
    assert [line.split()[1] for line in lines] == [
        "import",
        "train",
        "train",
        "generate",
        "export",
        "export",
    ]
    assert Clip.load("clips/clip-0000.mp4").frames.shape == (16, 64, 64, 3)
    for written, published in (
        ("official/base/unet.pt", base),
        ("official/large/super_resolution.pt", upsampler),
    ):
        state = torch.load(written, weights_only=True)
        assert state.keys() == published.keys()
        moved = [float((state[key] - value).abs().max()) for key, value in published.items()]
        assert 0 < max(moved) < 1e-3, "two steps from the published weights"


@pytest.mark.slow
def test_the_path_from_stable_diffusion_to_mm_ldm(tmp_path):
    config = tiny()
    first_stage = randomised(KLVAE(config.first_stage.model))
    decoder = randomised(SignalDecoder(config.autoencoder.model.decoder))
    own = ("video_content", "audio_content", "video_context", "audio_context", "shortcut")
    rules = signal_decoder_rules(config.autoencoder.model.decoder)
    unet = {
        key: value
        for (key, value), ours in zip(
            to_official(decoder, rules).items(), decoder.state_dict(), strict=True
        )
        if not ours.startswith(own)
    }
    vae = to_official(first_stage, kl_vae_diffusers_rules(3))
    state = {f"first_stage_model.{key}": value for key, value in vae.items()}
    state |= {f"model.diffusion_model.{key}": value for key, value in unet.items()}
    torch.save({"state_dict": state}, tmp_path / "v1-5-pruned-emaonly.ckpt")
    sizes = StableDiffusionSizes(
        first_stage=config.first_stage.model, decoder=config.autoencoder.model.decoder
    )
    start = tmp_path / "models" / "start"
    import_stable_diffusion([tmp_path / "v1-5-pruned-emaonly.ckpt"], start, sizes)
    prepared(tmp_path / "data", 32)
    words = ["mm-ldm-tiny", "--data", str(tmp_path / "data"), "--out"]
    words += [str(tmp_path / "run"), "--all-stages", "--first-stage.weights", str(start)]
    words += ["--autoencoder.unet-weights", str(start), "--adversarial.no-enabled"]
    for stage in ("autoencoder", "generator"):
        words += [f"--{stage}.train.total-samples", "16", f"--{stage}.train.preview-every", "0"]
    train(*words, "--decoding.num-steps", "2", "--sampling.num-steps", "2")
    model = tmp_path / "run" / "model"
    assert run(["generate", str(model), "--out", str(tmp_path / "clips"), "--count", "1"]) == 0
    kept = soundreel.load(model).first_stage.state_dict()
    for key, value in first_stage.state_dict().items():
        assert torch.equal(kept[key], value), key
