"""Everything with checksums in a folder, read once and compared with them."""

from collections.abc import Callable
from pathlib import Path

from soundreel.checkpoints.adapter import ADAPTER_CONFIG, Adapter
from soundreel.checkpoints.component import CONFIG_FILE, WEIGHTS_FILE
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import INDEX_FILE, read_model
from soundreel.data.captions import STATES_FILE, verify_states
from soundreel.data.latent_files import CACHE_FILE, verify_cache
from soundreel.data.manifest import DATASET_FILE
from soundreel.data.verify import verify_dataset
from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_checked_json
from soundreel.progress import progress_bar
from soundreel.study.design import STUDY_FILE
from soundreel.study.service import StudyService
from soundreel.training.init import INIT_FILE
from soundreel.training.state import STATE_FILE, verify_checkpoint


def verify_all(root: Path) -> str:
    """Compare all that lies in a folder with its checksums; return what was compared.

    Raises:
        SoundreelError: naming the first file, clip or row that is damaged, or there is nothing to
            compare.
    """
    counts: dict[str, int] = {}
    for file, what, verify in _KINDS:
        for path in sorted(root.rglob(file)) if root.is_dir() else ():
            counts[what] = counts.get(what, 0) + verify(path.parent)
    if (root / CONFIG_FILE).is_file() and not (root / WEIGHTS_FILE).is_file():
        for name in (CONFIG_FILE, INIT_FILE):  # of a run
            if (root / name).is_file():
                read_checked_json(root / name, CheckpointError)
    if not counts:
        raise SoundreelError(f"{root}: holds nothing with checksums; leave out --verify")
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def _dataset(root: Path) -> int:
    with progress_bar("verifying") as advance:
        return verify_dataset(root, advance)


def _model(folder: Path) -> int:
    for component in read_model(folder).components.values():
        component.state()
    return 1


def _adapter(folder: Path) -> int:
    Adapter.read(folder)
    return 1


def _checkpoint(folder: Path) -> int:
    verify_checkpoint(folder)
    return 1


def _study(folder: Path) -> int:
    service = StudyService(folder)
    service.close()
    return len(service.study.clips)


_KINDS: list[tuple[str, str, Callable[[Path], int]]] = [
    (DATASET_FILE, "clips", _dataset),
    (INDEX_FILE, "models", _model),
    (ADAPTER_CONFIG, "adapters", _adapter),
    (STATE_FILE, "checkpoints", _checkpoint),
    (CACHE_FILE, "latents", verify_cache),
    (STATES_FILE, "captions", verify_states),
    (STUDY_FILE, "clips of a study", _study),
]
"""File by which a folder is known, what is counted in it, and what verifies and counts it."""
