"""Shared blocks: embeddings, norms, attention, resampling."""

import math

import pytest
import torch
from torch import nn

from soundreel.device import resolve_precision
from soundreel.nn.attention import SelfAttention, dot_product_attention
from soundreel.nn.embeddings import TwoLayerMLP, sinusoidal_embedding
from soundreel.nn.gaussian import DiagonalGaussian
from soundreel.nn.layout import run, to_channels_last
from soundreel.nn.norms import group_norm, token_group_norm
from soundreel.nn.residual import ResidualBlock, resample


def test_sinusoids_are_cosines_then_sines_of_falling_frequency():
    embedding = sinusoidal_embedding(torch.tensor([0, 3]), 6)
    assert embedding[0].tolist() == [1, 1, 1, 0, 0, 0]
    frequency = [10_000 ** (-k / 3) for k in range(3)]
    wanted = [math.cos(3 * f) for f in frequency] + [math.sin(3 * f) for f in frequency]
    assert embedding[1].tolist() == pytest.approx(wanted, abs=1e-6)
    assert sinusoidal_embedding(torch.tensor([1.5]), 5).shape == (1, 5)


@pytest.mark.parametrize(("channels", "groups"), [(320, 32), (6, 6), (48, 24), (40, 20), (1, 1)])
def test_any_channel_count_has_a_group_norm(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("spread", [1.0, 1e-3, 0.0])
def test_norm_of_flat_images_is_exact_in_every_memory_layout(spread):
    """PyTorch's own kernel for channels-last images is off by 0.4 at a spread of 1e-3."""
    generator = torch.Generator().manual_seed(0)
    x = 5 + spread * torch.randn(3, 64, 16, 16, generator=generator)
    norm = group_norm(64)
    with torch.no_grad():
        expected = nn.GroupNorm(32, 64).double()(x.double())
        plain = norm(x)
        innermost = norm(x.contiguous(memory_format=torch.channels_last))
    tolerance = 1e-5 if spread == 1.0 else 3e-3
    assert float((plain - expected).abs().max()) < tolerance
    assert float((innermost - expected).abs().max()) < tolerance


def test_norm_has_the_gradient_of_the_plain_one():
    x = torch.randn(2, 64, 4, 4).contiguous(memory_format=torch.channels_last)
    ours, plain = (x.clone(memory_format=torch.preserve_format).requires_grad_() for _ in range(2))
    weight = torch.randn(2, 64, 4, 4)
    (group_norm(64)(ours) * weight).sum().backward()
    (nn.GroupNorm(32, 64)(plain.contiguous()) * weight).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_norm_of_tokens_has_the_values_and_gradients_of_the_plain_one_in_double(spread):
    generator = torch.Generator().manual_seed(0)
    x = 5 + spread * torch.randn(3, 500, 12, generator=generator)
    weight, bias = torch.randn(2, 12, generator=generator)
    of_y = torch.randn(3, 500, 12, generator=generator)
    ours = [t.clone().requires_grad_() for t in (x, weight, bias)]
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    got = token_group_norm(ours[0], 4, ours[1][None], ours[2][None])
    wanted = nn.functional.group_norm(exact[0].transpose(1, 2), 4, exact[1], exact[2])
    wanted = wanted.transpose(1, 2)
    # The mean of float32 numbers near 5 is known to two of their last places, about 1e-6: that
    # much is measured in spreads, and multiplied by weights up to 2.
    limit = 2e-6 / spread
    torch.testing.assert_close(got.double(), wanted, atol=2e-5 + limit, rtol=1e-3)
    gradients = torch.autograd.grad(got, ours, of_y)
    for gradient, truth in zip(
        gradients, torch.autograd.grad(wanted, exact, of_y.double()), strict=True
    ):
        scale = float(truth.abs().max())
        limit = 1e-6 / spread
        torch.testing.assert_close(gradient.double() / scale, truth / scale, atol=limit, rtol=0)


@pytest.mark.parametrize("is_activated", [False, True])
def test_norms_in_bfloat16_have_the_values_and_gradients_of_double(is_activated):
    generator = torch.Generator().manual_seed(0)
    x = (1 + torch.randn(2, 12, 20, 15, generator=generator)).bfloat16()
    weight, bias = torch.randn(2, 12, generator=generator)
    of_y = torch.randn(x.shape, generator=generator)
    image = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    norm = group_norm(12)
    norm.weight.data, norm.bias.data = weight, bias
    tokens = x.flatten(2).transpose(1, 2).contiguous().requires_grad_()
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]

    def activated(y):
        return nn.functional.silu(y) if is_activated else y

    wanted = activated(nn.functional.group_norm(exact[0], 12, *exact[1:]))
    truth = torch.autograd.grad(wanted, exact, of_y.double())
    learned = [t.clone().requires_grad_() for t in (weight, bias)]
    rows = [t[None] for t in learned]
    of_tokens = token_group_norm(tokens, 12, *rows, is_activated=is_activated)
    of_tokens = of_tokens.transpose(1, 2).unflatten(2, (20, 15))
    of_image = activated(norm(image))
    for got, *inputs in [(of_tokens, tokens, *learned), (of_image, image, norm.weight, norm.bias)]:
        of_x, *others = torch.autograd.grad(got, inputs, of_y.bfloat16())
        assert got.dtype == of_x.dtype == torch.bfloat16
        of_x = of_x if of_x.dim() == 4 else of_x.transpose(1, 2).unflatten(2, (20, 15))
        for rough, true in zip((got.detach(), of_x, *others), (wanted, *truth), strict=True):
            error = (rough.double() - true.detach()).norm() / true.detach().norm()
            assert float(error) < 0.01


def test_attention_equals_its_written_out_form():
    """Per head: query, key and value of the joint projection in turn."""
    torch.manual_seed(0)
    attention = SelfAttention(8, 4)
    nn.init.normal_(attention.out.weight)
    x = torch.randn(2, 8, 3, 2)
    with torch.no_grad():
        got = attention(x)
        tokens = attention.norm(x).flatten(2).transpose(1, 2)
        joint = attention.qkv(tokens).unflatten(2, (2, 3, 4))
        mixed = torch.empty(2, 6, 8)
        for head in range(2):
            query, key, value = joint[:, :, head].unbind(dim=2)
            weights = (query @ key.transpose(1, 2) / 2.0).softmax(dim=2)
            mixed[:, :, 4 * head : 4 * head + 4] = weights @ value
        wanted = x + attention.out(mixed).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="head_width"):
        SelfAttention(10, 4)


@pytest.mark.parametrize("length", [9, 300])
@pytest.mark.parametrize("is_biased", [False, True])
def test_attention_in_bfloat16_has_the_values_and_gradients_of_float32(length, is_biased):
    """Training in bfloat16 on a CPU takes another way through the formula where it is short."""
    resolve_precision(torch.device("cpu"), "bfloat16")  # as before any use: what works here
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(4, 2, length, 8, generator=generator) for _ in range(3)]
    bias = torch.randn(1, 2, length, length, generator=generator)
    results = []
    for kind in (torch.float32, torch.bfloat16):
        inputs = [x.clone().to(kind).requires_grad_() for x in tensors]
        out = dot_product_attention(*inputs, bias.to(kind) if is_biased else None)
        out.float().square().sum().backward()
        results.append([out.detach().float(), *(x.grad.float() for x in inputs)])
    for exact, rough in zip(*results, strict=True):
        assert float((exact - rough).norm() / exact.norm()) < 0.02


def test_blocks_start_as_their_skip_path():
    block = ResidualBlock(4, 4, embedding_dim=6)
    x = torch.randn(2, 4, 4, 4)
    assert torch.equal(block(x, torch.randn(2, 6)), x)
    halved = ResidualBlock(4, 4, resample=-1)(x)
    torch.testing.assert_close(halved, resample(x, -1))
    assert resample(resample(x, 2), -2).shape == x.shape


def test_zero_init_says_which_layers_start_at_zero():
    both = TwoLayerMLP(3, 4, 5, zero_init="both")
    assert not any(p.any() for p in both.parameters())
    last = TwoLayerMLP(3, 4, 5, zero_init="last")
    assert last.first.weight.any()
    assert not last.last.weight.any()
    with pytest.raises(ValueError, match="zero_init"):
        TwoLayerMLP(3, 4, 5, zero_init="first")


def test_gaussian_divergence_is_that_of_torch():
    mean, logvar = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    posterior = DiagonalGaussian.from_parameters(mean, logvar)
    reference = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, torch.exp(0.5 * logvar)),
        torch.distributions.Normal(torch.zeros(()), torch.ones(())),
    )
    torch.testing.assert_close(posterior.kl(), reference.flatten(1).sum(1))
    extreme = DiagonalGaussian.from_parameters(mean, torch.full_like(mean, 99.0))
    assert float(extreme.logvar.max()) == 20.0


def test_layout_and_recomputation_change_no_result():
    torch.manual_seed(0)
    block = ResidualBlock(8, 16, zero_init=False)
    x = torch.randn(2, 8, 4, 4)
    before = block(x)
    after = run(to_channels_last(block), x, recompute=True)
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_behind_a_frozen_network_learns(dtype):
    """PyTorch's own kernel ends the process here."""
    norm = group_norm(16).to(dtype)
    x = torch.randn(4, 16, 8, 8, dtype=dtype).contiguous(memory_format=torch.channels_last)
    norm(x).square().sum().backward()
    plain = group_norm(16)
    plain(x.float().contiguous().requires_grad_()).square().sum().backward()
    torch.testing.assert_close(norm.weight.grad.float(), plain.weight.grad, rtol=2e-2, atol=1e-2)
    assert not x.requires_grad
    frozen = group_norm(16).to(dtype).requires_grad_(False)
    assert not frozen(x).requires_grad
