"""Where and how exactly to compute: one rule, and a clear line where it cannot be."""

import pytest
import torch

from soundreel import device
from soundreel.device import autocast, find_device, resolve_precision
from soundreel.errors import SoundreelError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("has_cuda", "expected"), [(False, "cpu"), (True, "cuda")])
def test_without_a_wish_it_is_cuda_where_there_is_one(monkeypatch, has_cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert find_device() == find_device("auto") == torch.device(expected)


def test_only_devices_that_exist_are_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert find_device("cuda") == torch.device("cuda")
    assert find_device(torch.device("cuda:1")) == torch.device("cuda:1")
    for wanted in ("cuda:2", "mps", "tpu", "cuda:x"):
        with pytest.raises(SoundreelError, match=r"does not exist here; one of:? cpu, cuda:0, cu"):
            find_device(wanted)


@pytest.mark.parametrize(("bfloat16_s", "expected"), [(0.5, "bfloat16"), (0.95, "float32")])
def test_auto_is_bfloat16_only_where_it_is_clearly_faster(monkeypatch, bfloat16_s, expected):
    times = {torch.float32: 1.0, torch.bfloat16: bfloat16_s}
    monkeypatch.setattr(device, "_product_s", lambda _, dtype: times[dtype])
    assert resolve_precision(CPU, "auto") == expected


def test_auto_measures_a_product_on_this_machine():
    assert resolve_precision(CPU, "auto") in ("float32", "bfloat16")


def test_a_precision_takes_effect_and_another_word_is_refused():
    matrix = torch.ones(4, 4)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(CPU, precision):
            assert (matrix @ matrix).dtype == dtype
    with pytest.raises(SoundreelError, match="one of auto, float32, bfloat16, got 'half'"):
        autocast(CPU, "half")
