"""Nothing may pull the CUDA builds into a CPU environment, or packages that break beside them."""

from importlib.metadata import distributions

import pytest
import torch


@pytest.fixture(scope="module")
def installed() -> set[str]:
    return {name.lower().replace("_", "-") for d in distributions() if (name := d.name)}


def test_no_package_of_the_torch_family_got_in(installed):
    assert not installed & {"torchvision", "torchaudio"}


def test_no_cuda_package_got_in(installed):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, where they belong")
    cuda = {name for name in installed if name.startswith("nvidia-") or name == "triton"}
    assert not cuda, "install with -c constraints.txt and the CPU build of torch"
