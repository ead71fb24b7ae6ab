"""Two processes that divide a network between them, against one that has it whole."""

import json
from pathlib import Path

import pytest
from torch import nn
from torch.nn.utils import parametrize

from soundreel.checkpoints.lora import LoRAConfig, add_lora
from soundreel.training.loop import TrainConfig

SCRIPT = Path(__file__).with_name("sharded_script.py")


@pytest.fixture(scope="module")
def seen(python, tmp_path_factory):
    """What the script's processes found, the first one's first."""
    out = tmp_path_factory.mktemp("sharded")
    done = python(SCRIPT, out, processes=2)
    assert done.returncode == 0, done.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture
def repeated_blocks():
    """The function, imported where it is used: PyTorch's sharding takes seconds to import."""
    from soundreel.training.sharding import repeated_blocks

    return repeated_blocks


CASES = ["plain", "clipped", "frozen", "lora", "recomputed"]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_learns(seen, case):
    """Losses, gradients' norms and averaged weights, with two micro-batches in each process."""
    main = seen[0][case]
    assert main["steps"] == 6
    assert main["loss"] <= 1e-5
    assert main["norm"] <= 1e-5
    assert max(rank[case]["weights"] for rank in seen) <= 1e-5


def test_each_process_holds_half(seen):
    """Weights, both moments and the average of a network whose axes can be halved."""
    one, two = (rank["bytes"] for rank in seen)
    assert one["whole"] == two["whole"] == 4 * one["weights"]
    assert one["share"] + two["share"] == one["whole"]
    assert max(one["share"], two["share"]) <= 0.55 * one["whole"]


def test_gradients_are_shared_out_once_a_step(seen):
    """However many micro-batches there are; weights are put together for each of them."""
    for rank in seen:
        assert rank["reductions"]["4"] == rank["reductions"]["1"] > 0


def test_a_run_goes_on_with_another_number_of_processes(seen):
    for rank in seen:
        assert rank["resumed"]["2 on 2"] == 0.0
        assert rank["resumed"]["2 on 1"] <= 1e-5
        assert rank["resumed"]["1 on 2"] <= 1e-5


def test_a_sharded_checkpoint_is_whole_or_absent(seen):
    """A process that cannot write its shares leaves none, and says so; the next attempt does."""
    for rank in seen:
        assert "cannot be written (disk full)" in rank["failed"]["error"]
        assert rank["failed"]["checkpoints"] == []
        assert rank["failed"]["left"] == []
        assert rank["failed"]["after"] == ["000000008"]


def test_damage_is_one_line_that_names_the_file(seen):
    for rank in seen:
        assert "shard-00002-model-00001-of-00001.safetensors: missing, or dam" in rank["damaged"]
        assert "another shape: toy/first.weight is (8, 4), not (6, 4)" in rank["other"]
        assert "cannot be read" in rank["unchecked"]
        assert not any("\n" in rank[name] for name in ("damaged", "other", "unchecked"))


def test_one_process_has_whole_what_two_have_gathered(seen):
    main, other = seen
    assert main["gathered"]["kept"] == main["gathered"]["names"] > 0
    assert main["gathered"]["difference"] <= 1e-6
    assert other["gathered"]["kept"] == 0


def test_blocks_are_the_large_members_of_module_lists(repeated_blocks):
    network = nn.Module()
    network.blocks = nn.ModuleList([nn.ModuleList([nn.Linear(64, 64), nn.Linear(1, 1)])])
    network.inner = nn.Sequential(nn.Linear(64, 64))
    assert repeated_blocks(network) == [network.blocks[0][0]]
    add_lora(network, LoRAConfig(rank=2))
    assert isinstance(network.inner[0].parametrizations.weight, parametrize.ParametrizationList)
    assert repeated_blocks(network) == [network.blocks[0][0]]


def test_blocks_within_blocks_are_put_together_with_them(repeated_blocks):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    network = nn.Module()
    network.blocks = nn.ModuleList([Block(), Block()])
    assert repeated_blocks(network) == list(network.blocks)


def test_what_excludes_sharding_is_refused_by_name():
    with pytest.raises(ValueError, match="sharding and compile exclude each other"):
        TrainConfig(sharding=True, compile=True)
