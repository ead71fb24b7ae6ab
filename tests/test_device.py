"""Where and how exactly to compute: one rule, and a clear line where it cannot be."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch

from soundreel import device
from soundreel.device import autocast, find_device, resolve_precision
from soundreel.errors import SoundreelError
from soundreel.systems import all_systems
from soundreel.training.loop import TrainConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _real_measurement(monkeypatch, measured_product):
    monkeypatch.setattr(device, "_product_s", measured_product)


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


def test_auto_measures_once_and_not_again_where_a_product_is_slow(monkeypatch):
    """A processor without bfloat16 is hundreds of times as slow: one product must do."""
    clock, products = [0.0], []

    def product(matrix, other):
        assert matrix is other
        products.append((matrix.dtype, len(matrix)))
        clock[0] += 1.0 if matrix.dtype == torch.bfloat16 and len(matrix) > 64 else 0.001
        return matrix

    device._product_s.cache_clear()
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    monkeypatch.setattr(device.time, "perf_counter", lambda: clock[0])
    assert [resolve_precision(CPU, "auto") for _ in range(3)] == ["float32"] * 3
    device._product_s.cache_clear()
    assert len(products) == 2 + 5 + 1
    assert clock[0] < 1.1


def test_a_precision_takes_effect_and_another_word_is_refused():
    matrix = torch.ones(4, 4)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast(CPU, precision):
            assert (matrix @ matrix).dtype == dtype
    with pytest.raises(SoundreelError, match="one of auto, float32, bfloat16, got 'half'"):
        autocast(CPU, "half")


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_attention_takes_bfloat16_whatever_instructions_pytorch_may_use(capability):
    """PyTorch's own attention ends with an error there on a processor with AMX."""
    code = """
import torch
from soundreel.device import autocast
x = torch.randn(1, 2, 200, 32, requires_grad=True)
with autocast(torch.device("cpu"), "bfloat16"):
    y = torch.nn.functional.scaled_dot_product_attention(x, x, x)
y.float().square().sum().backward()
assert y.dtype == torch.bfloat16 and x.grad.isfinite().all()
"""
    given = os.environ | {"ATEN_CPU_CAPABILITY": capability}
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def precisions(config: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and precision of every training stage within a configuration."""
    if isinstance(config, TrainConfig):
        yield name, config.precision
    elif is_dataclass(config):
        for entry in fields(config):
            yield from precisions(getattr(config, entry.name), f"{name}.{entry.name}")


def test_every_preset_and_every_pipeline_takes_the_faster_precision():
    num_stages = 0
    for system in all_systems():
        for build in system.presets.values():
            for name, precision in precisions(build(), system.name):
                num_stages += 1
                assert precision == "auto", name
        for entry in fields(system.options):
            assert entry.name != "precision" or entry.default == "auto", system.name
    assert num_stages > 40


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "PASSIVE 1000"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE 7"),
    ],
)
def test_waiting_threads_spin_for_a_moment_unless_told_otherwise(given, expected):
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    asked = (
        "import os, soundreel; print(*map(os.environ.get, ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], env=kept | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
