"""The super-resolution network's own promises; its numbers are tested against the reference."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from soundreel.device import autocast
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
    super_resolution_denoiser,
)
from soundreel.types import AV

CONFIG = SuperResolutionConfig(
    low_res_size=8, size=16, width=32, channel_mult=(1, 2), num_res_blocks=1, attention_factors=(2,)
)


def network(config=CONFIG, seed=0):
    model = SuperResolutionUNet(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def inputs(batch=2, size=16):
    generator = torch.Generator().manual_seed(1)
    noisy = torch.randn(batch, 3, size, size, generator=generator)
    low_res = torch.randn(batch, 3, size // 2, size // 2, generator=generator)
    return noisy, low_res, torch.arange(batch) * 400


def test_a_new_network_predicts_zero():
    with torch.no_grad():
        assert not SuperResolutionUNet(CONFIG)(*inputs()).any()


@torch.no_grad()
def test_attention_is_one_fused_kernel():
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # any other is an error
        network()(*inputs())


def test_every_parameter_takes_part():
    model = network()
    model(*inputs()).square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_rows_do_not_touch_each_other_and_every_input_counts():
    model = network()
    noisy, low_res, timestep = inputs()
    with torch.no_grad():
        both = model(noisy, low_res, timestep)
        torch.testing.assert_close(
            model(noisy[1:], low_res[1:], timestep[1:]), both[1:], atol=1e-4, rtol=1e-4
        )
        assert not torch.allclose(model(noisy, low_res, timestep + 10), both)
        assert not torch.allclose(model(noisy, low_res.flip(-1), timestep), both)


def test_recomputation_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        model = network()
        model.recompute = recompute
        model(*inputs()).square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_the_head_answers_in_float32_under_autocast():
    model = network()
    with torch.no_grad():
        exact = model(*inputs())
        with autocast(torch.device("cpu"), "bfloat16"):
            rounded = model(*inputs())
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).abs().max() / exact.abs().max()) < 0.1


def test_the_denoiser_splits_noise_and_variance_along_the_channels():
    model = network()
    noisy, low_res, timestep = inputs()
    with torch.no_grad():
        out = model(noisy, low_res, timestep)
        prediction = super_resolution_denoiser(model, low_res)(AV(noisy, None), timestep)
    assert torch.equal(prediction.mean_output["video"], out[:, :3])
    assert torch.equal(prediction.variance_output["video"], out[:, 3:])
    assert prediction.mean_output.audio is None


def test_without_learned_variance_there_are_three_channels():
    config = SuperResolutionConfig(
        low_res_size=8,
        size=16,
        width=32,
        channel_mult=(1, 2),
        attention_factors=(),
        scale_shift_norm=False,
        learned_variance=False,
    )
    noisy, low_res, timestep = inputs()
    with torch.no_grad():
        denoiser = super_resolution_denoiser(network(config), low_res, learned_variance=False)
        prediction = denoiser(AV(noisy, None), timestep)
    assert prediction.mean_output["video"].shape == noisy.shape
    assert prediction.variance_output is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_factors": (4,)}, r"attention_factors \(4,\) must be among \[1, 2\]"),
        ({"size": 20}, "size 20 must be a multiple of low_res_size 8"),
        ({"width": 24}, "24 channels must divide into 32 norm groups"),
        ({"num_heads": 5}, "32 channels must divide into 32 norm groups and 5 heads"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"residual_scale": 2.0}, "needs learned_variance=False"),
    ],
)
def test_impossible_sizes_are_named(changes, message):
    settings = {"low_res_size": 8, "size": 16, "width": 32, "channel_mult": (1, 2)}
    with pytest.raises(ValueError, match=message):
        SuperResolutionConfig(**({"attention_factors": (2,)} | settings | changes))
