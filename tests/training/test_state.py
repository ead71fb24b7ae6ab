"""Checkpoints: whole or absent, never accepted when damaged, never none."""

import json
import shutil
from pathlib import Path
from random import Random

import pytest
import torch
from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.training import state as state_module
from soundreel.training.state import (
    list_checkpoints,
    load_training_state,
    save_training_state,
    verify_checkpoint,
)
from soundreel.training.trainee import Trainee, make_trainee


def no_objective(network, batch, noise):
    raise AssertionError("nothing is trained here")


def trainee(seed: int = 0, width: int = 3) -> Trainee:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))
    made = make_trainee("net", network, no_objective, learning_rate=0.1, ema_decay=0.9)
    network(torch.randn(4, 2)).square().sum().backward()
    made.optimizer.step()
    made.ema.update()
    return made


def tensors(of: Trainee) -> list[torch.Tensor]:
    moments = of.optimizer.state_dict()["state"]
    slots = [
        moments[number][slot] for number in sorted(moments) for slot in sorted(moments[number])
    ]
    return [*of.network.state_dict().values(), *of.ema.state_dict().values(), *slots]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return save_training_state(tmp_path_factory.mktemp("run"), [trainee()], 8, 2)


def test_a_checkpoint_restores_everything(whole):
    other = trainee(seed=1)
    assert load_training_state(whole, [other]) == 8
    assert all(torch.equal(a, b) for a, b in zip(tensors(other), tensors(trainee()), strict=True))


@pytest.mark.parametrize("seed", range(80))
def test_a_damaged_checkpoint_is_one_line_that_names_the_file(whole, tmp_path, seed, damaged):
    checkpoint = tmp_path / whole.name
    shutil.copytree(whole, checkpoint)
    random = Random(seed)
    path = random.choice(sorted(checkpoint.iterdir()))
    before = path.read_bytes()
    path.write_bytes(damaged(before, random))
    other = trainee(seed=1)
    try:
        load_training_state(checkpoint, [other])
    except CheckpointError as error:
        assert str(path) in str(error) or path.name == "state.json"  # noqa: PT017 - or is right
    else:
        pairs = zip(tensors(other), tensors(trainee()), strict=True)
        assert path.name == "state.json" or path.read_bytes() == before
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_missing_file_or_another_network_is_one_line(whole, tmp_path):
    checkpoint = tmp_path / whole.name
    shutil.copytree(whole, checkpoint)
    with pytest.raises(CheckpointError, match=r"0\.weight is \(3, 2\), not \(5, 2\)"):
        load_training_state(checkpoint, [trainee(width=5)])
    (checkpoint / "net.ema.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"net\.ema\.safetensors: missing, or damaged"):
        verify_checkpoint(checkpoint)
    path = checkpoint / "state.json"
    written = json.loads(path.read_text())
    del written["checksum"]
    path.write_text(json.dumps(written | {"checksums": {}}))
    with pytest.raises(CheckpointError, match=r"net\.ema\.safetensors: file not found"):
        load_training_state(checkpoint, [trainee()])
    path.write_text(json.dumps({"samples_seen": 8, "checksums": {"../x": "00000000"}}))
    with pytest.raises(CheckpointError, match="missing, or damaged"):
        verify_checkpoint(checkpoint)


def test_there_is_a_whole_checkpoint_at_every_moment(tmp_path, monkeypatch):
    save_training_state(tmp_path, [trainee()], 8, 1)
    left, remove = [], shutil.rmtree

    def watched(path: Path, **options: bool) -> None:
        whole = [other for other in list_checkpoints(tmp_path) if other != path]
        left.append([verify_checkpoint(other).samples_seen for other in whole])
        remove(path, **options)

    monkeypatch.setattr(state_module.shutil, "rmtree", watched)
    for samples in (16, 24, 24):
        save_training_state(tmp_path, [trainee()], samples, 1)
    assert all(left)
    assert [16] in left
    assert [24] in left
    assert [path.name for path in list_checkpoints(tmp_path)] == ["000000024"]
