"""Weight files of unknown origin: plain tensors are read, and what asks for memory is refused."""

import tracemalloc
import zipfile
from collections import OrderedDict

import pytest
import torch

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.import_torch import read_tensors

SMALL = 2**20


class Asks:
    """A call that takes `size` bytes of memory when it is unpickled."""

    def __init__(self, kind, size):
        self.kind, self.size = kind, size

    def __reduce__(self):
        return self.kind, (self.size,)


@pytest.mark.parametrize("legacy", [False, True])
def test_plain_tensors_are_read(tmp_path, legacy):
    weight = torch.arange(6.0).view(2, 3)
    state = OrderedDict(a=weight, b=weight.T, c=torch.nn.Parameter(weight[:, :2]), d=torch.zeros(0))
    torch.save({"state_dict": state}, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    found = read_tensors(tmp_path / "w.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def refused(path):
    """The message, and that reading took no memory to speak of."""
    tracemalloc.start()
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL
    return str(caught.value)


def test_an_archive_that_inflates_is_refused_before_it_is_read(tmp_path):
    torch.save({"w": torch.zeros(2**20)}, tmp_path / "whole.pt")
    path = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in whole.namelist():
            bomb.writestr(member, whole.read(member))
    assert path.stat().st_size < 20_000
    assert "members declare 4,19" in refused(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", [bytearray, torch.Tensor])
def test_a_pickle_that_asks_for_memory_is_refused(tmp_path, kind, legacy):
    path = tmp_path / "bomb.pt"
    state = {"w": torch.zeros(3), "x": Asks(kind, 2**33)}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert "not a plain dictionary of tensors" in refused(path)


def test_a_tensor_of_more_elements_than_there_are_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1).expand(2**40)}, tmp_path / "bomb.pt")
    assert "holds less than it declares: w" in refused(tmp_path / "bomb.pt")
