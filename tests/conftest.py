"""Where the reference tensors and the real clips lie; tests that need an absent one are skipped."""

import os
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _shared(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or ROOT.parent / "shared" / default)


@pytest.fixture(scope="session")
def parity_folder() -> Callable[[str], Path]:
    """`parity_folder("mm_diffusion")`: folder of reference tensors, from SOUNDREEL_PARITY."""

    def find(system: str) -> Path:
        folder = _shared("SOUNDREEL_PARITY", "parity") / system
        if not folder.is_dir():
            pytest.skip(f"no reference tensors in {folder}; set SOUNDREEL_PARITY")
        return folder

    return find


@pytest.fixture(scope="session")
def clips_folder() -> Path:
    """Folder of real clips, from SOUNDREEL_CLIPS."""
    folder = _shared("SOUNDREEL_CLIPS", "data/clips")
    if not folder.is_dir():
        pytest.skip(f"no clips in {folder}; set SOUNDREEL_CLIPS")
    return folder


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """Folder of small pretrained weights, from SOUNDREEL_WEIGHTS."""
    folder = _shared("SOUNDREEL_WEIGHTS", "weights")
    if not folder.is_dir():
        pytest.skip(f"no pretrained weights in {folder}; set SOUNDREEL_WEIGHTS")
    return folder


@pytest.fixture(scope="session")
def hostile_media() -> ModuleType:
    """The module `tests/hostile_media.py`, which builds broken and odd media files."""
    spec = spec_from_file_location("hostile_media", ROOT / "tests" / "hostile_media.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def hostile_folder(
    hostile_media: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Every hostile file, written once: paths by file name. Tests must not change them."""
    return hostile_media.build_hostile_folder(tmp_path_factory.mktemp("hostile"))
