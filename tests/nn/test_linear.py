"""Linear maps by either kernel."""

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from soundreel.device import autocast
from soundreel.nn import linear as module
from soundreel.nn.linear import Linear, linear


@pytest.fixture(params=[False, True], ids=["matmul", "convolution"])
def by_convolution(request, monkeypatch):
    monkeypatch.setattr(module, "_MKL_IS_SLOW", request.param)
    return request.param


@pytest.mark.parametrize("shape", [(64,), (3, 64), (1024, 64), (2, 4, 256, 64), (0, 64)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_linear_map_has_the_values_and_gradients_of_the_plain_one(
    shape, has_bias, by_convolution
):
    torch.manual_seed(0)
    layer = Linear(64, 96, bias=has_bias)
    x, of_y = torch.randn(shape, requires_grad=True), torch.randn(*shape[:-1], 96)
    y = layer(x)
    y.backward(of_y)
    double = [p.detach().double().requires_grad_() for p in (x, *layer.parameters())]
    expected = functional.linear(*double)
    expected.backward(of_y.double())
    assert y.shape == expected.shape
    torch.testing.assert_close(y.double(), expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip((x, *layer.parameters()), double, strict=True):
        scale = max(1.0, float(theirs.grad.abs().max()) if theirs.grad.numel() else 1.0)
        torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=3e-6 * scale, rtol=1e-5)


def test_tokens_that_are_not_contiguous_are_mapped_alike(by_convolution):
    x = torch.randn(64, 1024).T
    weight = torch.randn(96, 64)
    torch.testing.assert_close(linear(x, weight, None), x @ weight.T, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("rows", [255, 1024])
def test_the_sizes_decide_the_kernel(rows, by_convolution):
    x, layer = torch.randn(rows, 64), Linear(64, 64)
    with profile(activities=[ProfilerActivity.CPU]) as seen, torch.no_grad():
        layer(x)
    used = {event.key for event in seen.key_averages()}
    is_convolution = by_convolution and rows == 1024
    assert ("aten::mkldnn_convolution" in used) == is_convolution
    assert ("aten::addmm" in used) != is_convolution


def test_bfloat16_and_mixed_precision_stay_with_the_matrix_product(by_convolution):
    x, layer = torch.randn(1024, 64), Linear(64, 64)
    with autocast(torch.device("cpu"), "bfloat16"):
        assert layer(x).dtype == torch.bfloat16
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
