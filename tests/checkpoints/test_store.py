"""Model folders: what is saved loads back equal, and damage is named."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import (
    ModelIndex,
    load_component,
    load_model_index,
    load_state,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.files import FileError
from soundreel.types import ClipSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 4
    extra: Any = None


def build(config: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(config.width, 3), nn.BatchNorm1d(3))


def test_a_component_loads_back_equal(tmp_path) -> None:
    config = Config(width=6)
    module = build(config)
    # A transposed weight is not contiguous; the file format needs contiguous tensors.
    module[0].weight = nn.Parameter(torch.randn(6, 3).T)
    save_component(tmp_path, "net", module, config)
    loaded, loaded_config = load_component(tmp_path, "net", build, Config)
    assert loaded_config == config
    assert not loaded.training
    assert loaded.state_dict().keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=0, atol=0)
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_missing_and_surplus_and_misshapen_tensors_are_named(tmp_path) -> None:
    save_component(tmp_path, "net", nn.ModuleList(nn.Linear(2, 2) for _ in range(7)), Config())
    with pytest.raises(CheckpointError) as error:
        load_component(tmp_path, "net", build, Config)
    message = str(error.value)
    assert "net/model.safetensors" in message
    assert "missing: 1.running_mean" in message
    assert "10 surplus: 2.bias" in message
    assert "and 2 more" in message
    assert "0.weight is (2, 2), not (3, 4)" in message


def test_missing_and_damaged_files_are_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no model folder here"):
        load_model_index(tmp_path)
    with pytest.raises(CheckpointError, match=r"net/model\.safetensors: file not found"):
        load_state(tmp_path, "net")
    save_component(tmp_path, "net", build(Config()), Config())
    weights = tmp_path / "net" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_state(tmp_path, "net")
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a JSON file"):
        load_model_index(tmp_path)


def test_the_index_loads_back_equal_and_other_versions_are_refused(tmp_path) -> None:
    index = ModelIndex(
        system="mm-diffusion",
        components={"unet": "coupled-unet"},
        clip=ClipSpec(frame_rate=Fraction(30000, 1001)),
        settings={"schedule": "linear", "labels": ["a", "b"]},
    )
    save_model_index(tmp_path, index)
    assert load_model_index(tmp_path) == index
    path = tmp_path / "model_index.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    with pytest.raises(CheckpointError, match="format_version is 99, this release reads 1"):
        load_model_index(tmp_path)


def test_a_failed_write_leaves_nothing_and_keeps_what_was_there(tmp_path) -> None:
    target = tmp_path / "model"
    index = ModelIndex(system="mm-ldm", components={})
    with writing_folder(target) as folder:
        save_model_index(folder, index)
    with (
        pytest.raises(TypeError, match="cannot hold a Tensor"),
        writing_folder(target) as folder,
    ):
        save_component(folder, "net", build(Config()), Config(extra=torch.zeros(1)))
    assert load_model_index(target) == index
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    with writing_folder(target) as folder:
        save_model_index(folder, ModelIndex(system="mm-diffusion", components={}))
    assert load_model_index(target).system == "mm-diffusion"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_other_files_is_never_replaced(tmp_path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("years of work")
    with (
        pytest.raises(FileError, match=r"thesis: exists and holds no model_index\.json"),
        writing_folder(tmp_path / "thesis"),
    ):
        pass
    assert (tmp_path / "thesis" / "draft.txt").read_text() == "years of work"
