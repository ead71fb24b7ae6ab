import os
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from soundreel.checkpoints.component import save_tensors
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.packed import LEVELS, pack_model, pack_state
from soundreel.checkpoints.store import (
    ModelIndex,
    load_model_index,
    load_state,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.locks import FolderInUseError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 48, 3), nn.GroupNorm(8, 48), nn.Linear(96, 64))


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    save_component(folder, "network", network(), {"sizes": [1, 2]})
    save_model_index(folder, ModelIndex(system="toy", components={"network": "toy"}))
    return folder


def unpacked(state, tmp_path):
    (tmp_path / "network").mkdir(exist_ok=True)
    save_tensors(pack_state(state), tmp_path / "network" / "model.safetensors")
    return load_state(tmp_path, "network")


def test_a_packed_matrix_is_right_to_half_a_step_of_its_row(tmp_path):
    state = network().state_dict()
    back = unpacked(state, tmp_path)
    assert set(back) == set(state)
    for name, value in state.items():
        assert back[name].dtype == torch.float32
        step = value.abs().amax(dim=tuple(range(1, value.dim())), keepdim=True) / LEVELS
        bound = 0.501 * step if value.dim() > 1 else 1e-3 * value.abs() + 1e-7
        assert (back[name] - value).abs().le(bound).all(), name


@given(
    rows=st.integers(1, 5),
    exponent=st.integers(-30, 15),
    zero_rows=st.integers(0, 2),
)
def test_rows_of_any_magnitude_keep_their_own_precision(
    rows, exponent, zero_rows, tmp_path_factory
):
    """A row of tiny weights beside one of large weights loses nothing to it."""
    generator = torch.Generator().manual_seed(rows)
    small = torch.randn(rows, 4096, generator=generator) * 2.0**exponent
    large = torch.full((1, 4096), 1e4)
    value = torch.cat([small, large, torch.zeros(zero_rows, 4096)])
    back = unpacked({"weight": value}, tmp_path_factory.mktemp("rows"))["weight"]
    bound = (0.501 * value.abs().amax(dim=1) / LEVELS)[:, None] + 1e-14
    assert (back - value).abs().le(bound).all()


def test_integers_and_small_tensors_survive(tmp_path):
    state = {"count": torch.arange(5), "bias": torch.tensor([0.5, -2.0]), "small": torch.ones(2, 3)}
    back = unpacked(state, tmp_path)
    assert back["count"].dtype == torch.int64
    assert all(torch.equal(back[name].to(state[name]), state[name]) for name in state)


def test_small_tensors_beyond_half_precision_are_kept_whole(tmp_path):
    state = {"bias": torch.tensor([1e6, -2.5])}
    assert torch.equal(unpacked(state, tmp_path)["bias"], state["bias"])


def test_a_packed_folder_is_a_model_folder_of_a_quarter_of_the_size(model, tmp_path):
    size = pack_model(model, tmp_path / "packed")
    original = (model / "network" / "model.safetensors").stat().st_size
    assert size < 0.35 * original  # mostly header at this size
    before, after = load_model_index(model), load_model_index(tmp_path / "packed")
    assert after.checksums != before.checksums
    assert replace(after, checksums=before.checksums) == before
    state = load_state(tmp_path / "packed", "network")
    network().load_state_dict(state)
    again = pack_state(state)
    assert torch.equal(again["0.weight"], pack_state(network().state_dict())["0.weight"])


def test_two_packs_of_one_folder_at_once_are_refused(model, tmp_path):
    packed = tmp_path / "packed"
    refused = pytest.raises(FolderInUseError, match=f"packed: in use by process {os.getpid()} on ")
    with writing_folder(packed) as temporary:
        shutil.copytree(model, temporary, dirs_exist_ok=True)
        with refused:
            pack_model(model, packed)
    assert load_model_index(packed) == load_model_index(model)


def test_what_cannot_be_packed_is_refused_and_leaves_nothing(model, tmp_path):
    with pytest.raises(CheckpointError, match="no such model folder"):
        pack_model(tmp_path / "nothing", tmp_path / "packed")
    with pytest.raises(CheckpointError, match="is the model itself"):
        pack_model(model, model)
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    state = load_state(model, "network")
    save_tensors(
        {**state, "1.bias": torch.full((48,), torch.inf)}, broken / "network" / "model.safetensors"
    )
    save_model_index(broken, load_model_index(broken))  # as a run that failed would
    with pytest.raises(CheckpointError, match="not finite"):
        pack_model(broken, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()
