"""Models by folder or Hub name; the Hub is a stub that copies a local repository."""

import fnmatch
import shutil
import sys
from types import SimpleNamespace

import pytest
from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.hub import resolve_model, upload_model
from soundreel.checkpoints.store import ModelIndex, save_component, save_model_index
from soundreel.types import ClipSpec


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    save_component(folder, "unet", nn.Linear(2, 2), ClipSpec())
    components = {"unet": "coupled-unet"}
    save_model_index(folder, ModelIndex(system="mm-diffusion", components=components))
    return folder


def test_default_is_the_model_that_comes_with_the_package(tmp_path, monkeypatch, model):
    assert (resolve_model("default") / "model_index.json").is_file()
    monkeypatch.chdir(tmp_path)
    model.rename(tmp_path / "default")
    assert resolve_model("default").resolve() == tmp_path / "default"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with one folder per repository; the real package's error types."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    root = tmp_path / "hub"
    asked = []

    def copy(source, target, patterns):
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            name = str(path.relative_to(source))
            if any(fnmatch.fnmatch(name, pattern) for pattern in patterns):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target / name)

    def snapshot_download(repo, *, revision, allow_patterns):
        asked.append((repo, revision))
        if not (root / repo).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"no {repo}\nmore advice")
        copy(root / repo, tmp_path / "cache" / repo, allow_patterns)
        return str(tmp_path / "cache" / repo)

    class Api:
        def create_repo(self, repo, *, private, exist_ok):
            assert private
            assert exist_ok
            (root / repo).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
            copy(folder_path, root / repo_id, allow_patterns)
            return f"hub://{repo_id}"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return SimpleNamespace(root=root, asked=asked)


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


COMPLETE = ["model_index.json", "unet/config.json", "unet/model.safetensors"]


def test_a_local_folder_is_taken_as_it_is(model):
    assert resolve_model(model) == model
    assert resolve_model(str(model)) == model


def test_what_is_uploaded_comes_back_and_nothing_unsafe_travels(model, hub):
    (model / "unet" / "pytorch_model.bin").write_bytes(b"pickle")
    (model / "notes.txt").write_text("private")
    assert upload_model(model, "owner/name") == "hub://owner/name"
    assert names(hub.root / "owner/name") == COMPLETE
    # Even if somebody else put a pickle into the repository, it is not fetched.
    (hub.root / "owner/name" / "evil.pt").write_bytes(b"pickle")
    folder = resolve_model("owner/name@v1.0")
    assert names(folder) == COMPLETE
    assert hub.asked == [("owner/name", "v1.0")]


def test_an_incomplete_folder_is_not_uploaded(model, hub):
    (model / "unet" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="file not found; its folder is incomplete"):
        upload_model(model, "owner/name")
    assert not hub.root.exists()


def test_absent_models_are_named_in_one_line(tmp_path, hub):
    with pytest.raises(CheckpointError, match=r"owner/absent: .* \(no owner/absent\)") as error:
        resolve_model("owner/absent")
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match="no such model folder"):
        resolve_model(tmp_path / "absent" / "deep" / "folder")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no model folder here"):
        resolve_model(tmp_path / "empty")


def test_a_repository_without_a_model_is_named(hub):
    (hub.root / "owner" / "data").mkdir(parents=True)
    (hub.root / "owner" / "data" / "README.md").write_text("no model")
    with pytest.raises(CheckpointError, match=r"model_index\.json is missing"):
        resolve_model("owner/data")


def test_without_the_extra_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'soundreel\[hub\]'"):
        resolve_model("owner/name")
