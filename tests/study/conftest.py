"""A small study of two systems and real clips, its clips made of nothing but colour and a tone."""

import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from soundreel.cli.study import CreateArguments, study
from soundreel.clip import Clip
from soundreel.study.design import Study, StudyClip

SYSTEMS = ("zebra-net", "yak-diffusion", "real")


def write_clips(folder: Path, count: int, duration_s: float, seed: int = 0) -> Path:
    """Files `narwhal-0.mp4` and so on, whose names must not get out."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for index in range(count):
        num_frames = round(duration_s * 10)
        frames = np.empty((num_frames, 48, 64, 3), np.uint8)
        frames[:] = rng.integers(0, 256, 3)
        frames[:, :, : 8 * (1 + index % 4)] //= 2
        time_s = np.arange(num_frames * 1600) / 16_000
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(200, 800) * time_s)
        clip = Clip(frames, tone[None].astype(np.float32), Fraction(10), 16_000)
        clip.save(folder / f"narwhal-{index}.mp4")
    return folder


@pytest.fixture(scope="session")
def clip_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four clips of 0.4 s by each system."""
    root = tmp_path_factory.mktemp("clips")
    return {system: write_clips(root / system, 4, 0.4, seed) for seed, system in enumerate(SYSTEMS)}


@pytest.fixture(scope="session")
def finished_study(clip_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of those clips, as the command makes it. Tests must not change it."""
    folder = tmp_path_factory.mktemp("study") / "study"
    arguments = CreateArguments(
        folder=folder,
        system=tuple((f"{system}={clip_folders[system]}",) for system in SYSTEMS[:2]),
        real=clip_folders["real"],
        mos_trials=3,
        turing_trials=3,
        min_duration_s=0.2,
    )
    assert study(arguments) == 0
    return folder


@pytest.fixture
def study_folder(finished_study: Path, tmp_path: Path) -> Path:
    """A copy of it, to be answered."""
    return Path(shutil.copytree(finished_study, tmp_path / "study"))


def made_up_study(num_clips: int = 30, systems: tuple[str, ...] = SYSTEMS, **changes) -> Study:
    """A study without files."""
    clips = [
        StudyClip(id=f"{system[0]}{k:03d}", system=system, name=f"{k}.mp4", sha256="")
        for system in systems
        for k in range(num_clips)
    ]
    clips.append(StudyClip(id="noise0", system="", name="noise 1", sha256=""))
    settings = {
        "duration_s": 0.4,
        "height": 48,
        "width": 64,
        "frame_rate": "10",
        "sample_rate": 16_000,
        "num_channels": 1,
    }
    return Study(**(settings | changes), clips=tuple(clips))


@pytest.fixture
def make_study():
    """The function `made_up_study`."""
    return made_up_study


@pytest.fixture
def make_clips():
    """The function `write_clips`."""
    return write_clips
