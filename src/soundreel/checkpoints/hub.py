"""Model folders on the Hugging Face Hub: `owner/name`, optionally with `@revision`.

Only the files of the model folder format travel, JSON and safetensors, so nothing that is
downloaded can run code. Needs the `hub` extra; a local folder needs nothing.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from soundreel.checkpoints.component import CONFIG_FILE, WEIGHTS_FILE
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    INDEX_FILE,
    read_model,
)

SAFE_FILES = (INDEX_FILE, f"*/{CONFIG_FILE}", f"*/{WEIGHTS_FILE}", "README.md", "LICENSE*")
DEFAULT_NAME = "default"
DEFAULT_MODEL = Path(__file__).parents[1] / "assets" / "default_model"
_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def resolve_model(name_or_path: str | Path) -> Path:
    """Return the folder of a model: a local one, or one downloaded from the Hub into its cache.

    Where no folder is called so, `default` is the model that comes with the package.

    Raises:
        CheckpointError: neither a local model folder nor a Hub repository that holds one.
    """
    path = Path(name_or_path).expanduser()
    if str(name_or_path) == DEFAULT_NAME and not path.is_dir():
        path = DEFAULT_MODEL
    if not path.is_dir():
        if path.is_file() or not is_hub_name(name_or_path):
            raise CheckpointError(
                f"{name_or_path}: no such model folder; give a folder with a {INDEX_FILE}, "
                "or a Hub name such as owner/name"
            )
        path = download(str(name_or_path), SAFE_FILES)
    if not (path / INDEX_FILE).is_file():
        if (path / "model" / INDEX_FILE).is_file():
            raise CheckpointError(f"{path} is a training run; its model is {path / 'model'}")
        raise CheckpointError(f"{path}: no model folder here ({INDEX_FILE} is missing)")
    return path


def is_hub_name(name: str | Path) -> bool:
    """Return whether this has the form `owner/name` or `owner/name@revision`."""
    return _HUB_NAME.fullmatch(str(name)) is not None


def download(name: str, patterns: Sequence[str]) -> Path:
    """Return a local copy of those files of a Hub repository that match one of the patterns.

    Raises:
        CheckpointError: there is no such repository, or the Hub cannot be reached.
    """
    match = _HUB_NAME.fullmatch(name)
    assert match is not None, "callers check the form of the name"
    hub = _huggingface_hub()
    try:
        folder = hub.snapshot_download(
            match["repo"], revision=match["revision"], allow_patterns=list(patterns)
        )
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{name}: no such local file or folder, and not fetched from the Hub ({reason})"
        ) from error
    return Path(folder)


def upload_model(folder: Path, repository: str, *, private: bool = True) -> str:
    """Put a model folder on the Hub, creating the repository if needed.

    Args:
        repository: `owner/name`.

    Returns:
        The address of the upload.

    Raises:
        CheckpointError: the folder is incomplete, or the Hub refuses.
    """
    folder = Path(folder)
    for component in read_model(folder).components.values():
        component.state()
    hub = _huggingface_hub()
    api = hub.HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(SAFE_FILES),
            commit_message="Upload a Soundreel model",
        )
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{repository}: the Hub refused the upload ({reason})") from error
    return str(commit)


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise CheckpointError(
            "reading from the Hub needs the package huggingface_hub; "
            "install it with: pip install 'soundreel[hub]'"
        ) from error
    return huggingface_hub
