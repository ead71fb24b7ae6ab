"""Networks start from those of an earlier model, strictly by name and shape."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import ModelIndex, save_component, save_model_index
from soundreel.config_io import ConfigError
from soundreel.training.init import InitialModel, initial_model
from soundreel.types import ClipSpec


def network(num_classes: int, width: int = 8) -> nn.ModuleDict:
    torch.manual_seed(num_classes)
    return nn.ModuleDict({"body": nn.Linear(width, width), "classes": nn.Embedding(num_classes, 2)})


@pytest.fixture
def model(tmp_path):
    save_component(tmp_path / "model", "net", network(3), ClipSpec())
    save_model_index(tmp_path / "model", ModelIndex(system="toy", components={"net": "toy"}))
    return tmp_path / "model"


def test_what_does_not_fit_stays_as_initialised_and_is_named(model, caplog):
    ours = network(5)
    classes = ours["classes"].weight.clone()
    with caplog.at_level(logging.INFO):
        InitialModel(model).load_into(ours, "net")
    assert torch.equal(ours["body"].weight, network(3)["body"].weight)
    assert torch.equal(ours["classes"].weight, classes)
    assert "left as initialised: classes.weight" in caplog.text
    with caplog.at_level(logging.INFO):
        InitialModel(model).load_into(network(3), "net")
        InitialModel(model).load_into(ours, "other")
    assert f"net starts from {model}" in caplog.text
    assert "has no other" in caplog.text


def test_a_run_finds_its_model_again_from_another_folder(model, tmp_path, monkeypatch):
    for init, out in (("default", "default"), ("model", "run")):
        monkeypatch.chdir(tmp_path)
        initial = initial_model(Path(out), init)
        (tmp_path / out).mkdir()
        initial.remember(Path(out))
        (tmp_path / "other").mkdir()
        with pytest.raises(CheckpointError, match="other: no model folder here"):
            initial_model(Path(out), "other")  # nothing is trained yet: another may be named
        (tmp_path / "other").rmdir()
        (tmp_path / out / "config.json").touch()
        for again in ("", init):
            assert initial_model(Path(out), again).path == initial.path
        monkeypatch.chdir(tmp_path / out)
        assert initial_model(tmp_path / out, "").path == initial.path
        with pytest.raises(ConfigError, match=r"was begun from .*, not from other; leave out"):
            initial_model(tmp_path / out, "other")
    assert initial.path == model


def test_damaged_weights_are_taken_neither_into_a_network_nor_as_they_are(model, tmp_path):
    weights = model / "net" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\7")
    with pytest.raises(CheckpointError, match="damaged since it was written"):
        InitialModel(model).load_into(network(3), "net")
    with pytest.raises(CheckpointError, match="damaged since it was written"):
        InitialModel(model).copy("net", tmp_path / "component", "network")
    assert not (tmp_path / "component").exists()


def test_another_architecture_and_no_model_are_refused(model, tmp_path):
    with pytest.raises(ConfigError, match=r"\d+% of its net fits.*body.weight"):
        InitialModel(model).load_into(network(3, width=16), "net")
    with pytest.raises(CheckpointError, match="no such model folder"):
        InitialModel(tmp_path / "absent")
