import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from soundreel.device import autocast
from soundreel.systems.mm_diffusion import coupled_unet
from soundreel.systems.mm_diffusion.blocks import AudioConv, cyclic_windows
from soundreel.systems.mm_diffusion.coupled_unet import (
    CoupledUNet,
    CoupledUNetConfig,
    num_parameters,
    split_variance,
)
from soundreel.types import AV


def tiny(**changes):
    settings = {
        "num_frames": 4,
        "width": 8,
        "channel_mult": (1, 2),
        "num_res_blocks": 1,
        "video_attention_factors": (2,),
        "cross_attention_factors": (2,),
        "cross_attention_windows": (2,),
        "num_heads": 2,
        "cross_head_width": 8,
        "num_groups": 8,
        "dropout": 0.0,
    }
    return CoupledUNetConfig(**{**settings, **changes})


def awake(config, seed=0):
    """A network whose zero-initialised layers also act, so that every path changes the output."""
    torch.manual_seed(seed)
    network = CoupledUNet(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


def clip(batch=2, frames=4, size=8, samples=64):
    generator = torch.Generator().manual_seed(1)
    return AV(
        torch.randn(batch, frames, 3, size, size, generator=generator),
        torch.randn(batch, 1, samples, generator=generator),
    )


@torch.no_grad()
def test_attention_is_one_fused_kernel():
    network, given = awake(tiny()).eval(), clip()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # any other is an error
        network(given, torch.tensor([3, 900]))


def test_published_sizes_have_the_published_parameter_counts():
    assert num_parameters(CoupledUNetConfig()) == 133_675_524
    assert num_parameters(CoupledUNetConfig(width=256)) == 534_017_028


def test_published_dilations_follow_the_rule_of_the_released_code():
    with torch.device("meta"):
        network = CoupledUNet(CoupledUNetConfig())

    def dilations(entries):
        return [
            block.audio_conv_in.dilation[0]
            for entry in entries
            for block in entry
            if hasattr(block, "audio_conv_in")
        ]

    assert dilations(list(network.input_blocks)[1:]) == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1, 2]
    assert dilations([network.middle_blocks]) == [4, 4]
    ups = [2, 1, 512, 256, 256, 128, 64, 32, 32, 16, 8, 4, 4, 2, 1]
    assert dilations(network.output_blocks) == ups


def test_a_new_network_predicts_zero():
    output = CoupledUNet(tiny())(clip(), torch.tensor([3, 900]))
    assert all(tensor.abs().max() == 0 for tensor in output.tensors)


@pytest.mark.parametrize("video_conv", ["2d+1d", "3d"])
@pytest.mark.parametrize("scale_shift_norm", [True, False])
def test_every_parameter_gets_a_gradient(video_conv, scale_shift_norm):
    config = tiny(
        video_conv=video_conv, scale_shift_norm=scale_shift_norm, audio_attention_factors=(2,)
    )
    network = awake(config)
    output = network(clip(), torch.tensor([3, 900]), [1] * len(network.shift_ranges))
    sum(tensor.square().sum() for tensor in output.tensors).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_evaluation_is_deterministic_and_the_shift_matters():
    network = awake(tiny(num_frames=8, cross_attention_windows=(2,))).eval()
    x, timestep = clip(frames=8), torch.tensor([3, 900])
    zero = [0] * len(network.shift_ranges)
    other = [3] * len(network.shift_ranges)
    with torch.no_grad():
        first, again, shifted = (network(x, timestep, s) for s in (zero, None, other))
    assert torch.equal(first["video"], again["video"])
    assert not torch.allclose(first["video"], shifted["video"])
    assert not torch.allclose(first["audio"], shifted["audio"])


def test_each_modality_hears_of_the_other():
    network = awake(tiny()).eval()
    x = clip()
    with torch.no_grad():
        base = network(x, torch.tensor([3, 900]))
        changed = network(x.replace("audio", x["audio"] + 1), torch.tensor([3, 900]))
        changed_video = network(x.replace("video", x["video"] * 2), torch.tensor([3, 900]))
    assert not torch.allclose(base["video"], changed["video"])
    assert not torch.allclose(base["audio"], changed_video["audio"])


def test_shifts_are_uniform_over_the_published_range():
    network = CoupledUNet(tiny(num_frames=8, cross_attention_windows=(3,)))
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([network.draw_window_shifts(generator) for _ in range(3000)]).flatten()
    counts = torch.bincount(draws, minlength=6)
    assert len(counts) == 6
    expected = len(draws) / 6
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 20.5  # 0.1 % quantile of chi squared with 5 degrees of freedom


def test_recomputed_activations_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        network = awake(tiny(num_frames=8, dropout=0.3)).train()
        network.recompute = recompute
        torch.manual_seed(5)
        output = network(clip(frames=8), torch.tensor([3, 900]), [2] * len(network.shift_ranges))
        sum(tensor.square().sum() for tensor in output.tensors).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-6)


def naive_windows(tokens, frames, window, shift):
    """The published index rule, one frame and one key at a time."""
    total = tokens.shape[1]
    per_frame = total // frames
    rows = []
    for i in range(frames):
        keys = [(i * per_frame + shift * per_frame + r) % total for r in range(window * per_frame)]
        rows.append(tokens[:, keys])
    return torch.stack(rows, dim=1)


@pytest.mark.parametrize("samples", [24, 26, 29])
@pytest.mark.parametrize(("window", "shift"), [(1, 0), (1, 7), (3, 5), (8, 0), (8, 3)])
def test_vectorised_windows_equal_the_naive_loop(samples, window, shift):
    tokens = torch.randn(2, samples, 3, generator=torch.Generator().manual_seed(0))
    expected = naive_windows(tokens, 8, window, shift)
    assert torch.equal(cyclic_windows(tokens, 8, window, shift), expected)


@pytest.mark.parametrize("dilation", [1, 4, 16, 40])
def test_dilated_audio_convolution_equals_conv1d(dilation):
    torch.manual_seed(0)
    conv = AudioConv(3, 5, dilation)
    x = torch.randn(2, 16, 3)
    expected = torch.nn.Conv1d.forward(conv, x.mT).mT
    torch.testing.assert_close(conv(x), expected, rtol=1e-5, atol=1e-6)


def test_learned_variance_doubles_the_channels():
    network = awake(tiny(learned_variance=True)).eval()
    with torch.no_grad():
        output = network(clip(), torch.tensor([3, 900]))
    mean, variance = split_variance(output)
    assert output["video"].shape[2] == 6
    assert output["audio"].shape[1] == 2
    assert torch.equal(torch.cat([mean["video"], variance["video"]], 2), output["video"])
    assert torch.equal(torch.cat([mean["audio"], variance["audio"]], 1), output["audio"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cross_attention_windows": (5,)}, "cross_attention_windows: 5"),
        ({"cross_attention_windows": (1, 2)}, "one window for each"),
        ({"video_attention_factors": (3,)}, "video_attention_factors"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        tiny(**changes)


def test_small_networks_do_not_wait_for_memory_to_be_returned(monkeypatch):
    returned = []
    monkeypatch.setattr(coupled_unet, "return_free_memory", lambda: returned.append(1))
    network = CoupledUNet(tiny()).eval()
    with torch.inference_mode():
        network(clip(), torch.tensor([3, 900]))
        assert not returned
        monkeypatch.setattr(coupled_unet, "LARGE_BYTES", 1)
        network(clip(), torch.tensor([3, 900]))
    assert len(returned) == len(network.input_blocks) + len(network.output_blocks)


def test_sizes_the_network_cannot_halve_are_refused():
    with pytest.raises(ValueError, match="multiples of 2 pixels and 4 samples"):
        CoupledUNet(tiny())(clip(size=7), torch.tensor([3, 900]))
    with pytest.raises(ValueError, match=r"expected \d window shifts, got 1"):
        CoupledUNet(tiny())(clip(), torch.tensor([3, 900]), [0])


def test_bfloat16_autocast_stays_close_to_float32():
    network = awake(tiny()).eval()
    with torch.no_grad():
        exact = network(clip(), torch.tensor([3, 900]))
        with autocast(torch.device("cpu"), "bfloat16"):
            rough = network(clip(), torch.tensor([3, 900]))
    for modality in ("video", "audio"):
        assert rough[modality].dtype == torch.float32
        error = (rough[modality] - exact[modality]).norm() / exact[modality].norm()
        assert 0 < float(error) < 0.05
        assert math.isfinite(float(error))
