"""A small data set and a run on it, made once: what commands are pointed at."""

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.config import DataConfig, PreviewConfig
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.diffusion.config import DiffusionConfig
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNetConfig
from soundreel.systems.mm_diffusion.training import train_mm_diffusion
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec

FRAME_RATE = Fraction(10)
SAMPLE_RATE = 8_000


def small_config() -> MMDiffusionConfig:
    clip = ClipSpec(
        num_frames=4, height=16, width=16, frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE
    )
    return MMDiffusionConfig(
        clip=clip,
        unet=CoupledUNetConfig(
            num_frames=4,
            width=8,
            channel_mult=(1, 2),
            num_res_blocks=1,
            video_attention_factors=(),
            cross_attention_factors=(2,),
            cross_attention_windows=(2,),
            num_heads=1,
            cross_head_width=0,
            num_groups=4,
            dropout=0.0,
        ),
        # With epsilon the clips of so young a network would be pure black and white.
        diffusion=DiffusionConfig(prediction_type="v"),
        data=DataConfig(stride=2),
        train=TrainConfig(
            total_samples=8,
            global_batch_size=2,
            micro_batch_size=2,
            log_every=4,
            save_every=4,
            preview_every=8,
        ),
        preview=PreviewConfig(count=1, num_steps=2),
    )


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 2 s, prepared at 16x16 pixels."""
    root = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    for index in range(3):
        frames = rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
        waveform = rng.uniform(-0.5, 0.5, (1, 16_000)).astype(np.float32)
        path = root / "videos" / ("dog" if index else "cat") / f"{index}.mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        Clip(frames, waveform, FRAME_RATE, SAMPLE_RATE).save(path)
    options = PrepareOptions(
        height=16, width=16, sample_rate=SAMPLE_RATE, labels="folder", min_duration_s=1.0
    )
    prepare_dataset(root / "videos", root / "data", options, num_workers=0)
    return root / "data"


@pytest.fixture(scope="session")
def small_run(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 8 clips; its model is in the folder `model`."""
    out = tmp_path_factory.mktemp("runs") / "run"
    train_mm_diffusion(small_config(), small_dataset, out)
    return out


@pytest.fixture(scope="session")
def unfinished_run(
    small_dataset: Path, tmp_path_factory: pytest.TempPathFactory, edit_json
) -> Path:
    """A run that has seen 4 of 8 clips when it is looked at."""
    out = tmp_path_factory.mktemp("runs") / "unfinished"
    config = small_config()
    half = replace(config, train=replace(config.train, total_samples=4, preview_every=0))
    train_mm_diffusion(half, small_dataset, out)
    train = json.loads((out / "config.json").read_text())["train"]
    edit_json(out / "config.json", {"train": train | {"total_samples": 8}})
    return out


PEAK = """
import sys
from soundreel.cli.main import run
code = run(sys.argv[1:])
with open("/proc/self/status") as file:
    peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
print("peak", peak)
sys.exit(code)
"""


@pytest.fixture
def peak_mb():
    """Run a command in a process of its own; return the most memory it took, in 10^6 bytes.

    `getrusage` would count what the test process itself held when it forked.
    """
    if not Path("/proc/self/status").is_file():
        pytest.skip("reads the peak of a process from /proc")

    def measure(*arguments):
        command = [sys.executable, "-c", PEAK, *map(str, arguments)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return 1024 * int(done.stdout.split()[-1]) / 1e6

    return measure
