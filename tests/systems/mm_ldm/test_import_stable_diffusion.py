"""Starting the signal decoder from a Stable Diffusion v1 U-Net of either layout."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from soundreel.checkpoints.errors import CheckpointError
from soundreel.systems.mm_ldm.import_stable_diffusion import OWN_LAYERS, load_unet
from soundreel.systems.mm_ldm.official_keys import signal_decoder_rules, to_official
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoder, SignalDecoderConfig
from soundreel.systems.mm_ldm.stable_diffusion_keys import unet_diffusers_rules

SMALL = SignalDecoderConfig(
    image_size=8,
    width=32,
    channel_mult=(1, 2, 2),
    num_res_blocks=1,
    attention_factors=(1, 2),
    num_heads=4,
    context_dim=16,
    num_classes=2,
)


def decoder(seed, config=SMALL):
    torch.manual_seed(seed)
    return SignalDecoder(config)


def stable_diffusion_part(source, rules, prefix=""):
    published = to_official(source, rules)
    return {
        prefix + theirs: value.contiguous()
        for (theirs, value), ours in zip(published.items(), source.state_dict(), strict=True)
        if ours.split(".")[0] not in OWN_LAYERS
    }


@pytest.mark.parametrize(
    ("rules", "prefix"),
    [
        (signal_decoder_rules, ""),
        (signal_decoder_rules, "model.diffusion_model."),
        (unet_diffusers_rules, ""),
    ],
)
def test_unet_weights_load_and_own_layers_stay(tmp_path, rules, prefix):
    source, target = decoder(0), decoder(1)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    save_file(stable_diffusion_part(source, rules(SMALL), prefix), tmp_path / "unet.safetensors")
    load_unet(target, tmp_path / "unet.safetensors")
    loaded = source.state_dict()
    for key, value in target.state_dict().items():
        expected = before if key.split(".")[0] in OWN_LAYERS else loaded
        assert torch.equal(value, expected[key]), key


def test_a_file_without_our_shortcut_loads_into_a_decoder_with_it(tmp_path):
    source, target = decoder(0), decoder(1, replace(SMALL, linear_shortcut=True))
    before = target.shortcut.into.weight.clone()
    rules = signal_decoder_rules(SMALL)
    save_file(stable_diffusion_part(source, rules), tmp_path / "unet.safetensors")
    load_unet(target, tmp_path / "unet.safetensors")
    assert torch.equal(target.shortcut.into.weight, before)
    assert torch.equal(target.norm_out.weight, source.norm_out.weight)
    assert torch.equal(target.time_embed.first.weight, source.time_embed.first.weight)


def test_diffusers_names_and_shapes_are_those_of_its_stable_diffusion_files():
    """Names known from the published `unet/diffusion_pytorch_model.safetensors`."""
    config = SignalDecoderConfig()
    with torch.device("meta"):
        full = SignalDecoder(config)
    state = stable_diffusion_part(full, unet_diffusers_rules(config))
    shapes = {key: list(value.shape) for key, value in state.items()}
    assert len(shapes) == 686
    assert sum(value.numel() for value in state.values()) == 859_520_964
    known = {
        "conv_in.weight": [320, 4, 3, 3],
        "time_embedding.linear_2.weight": [1280, 1280],
        "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight": [320, 768],
        "down_blocks.0.downsamplers.0.conv.weight": [320, 320, 3, 3],
        "down_blocks.2.resnets.0.time_emb_proj.weight": [1280, 1280],
        "down_blocks.3.resnets.1.conv2.weight": [1280, 1280, 3, 3],
        "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight": [10240, 1280],
        "mid_block.resnets.1.norm1.weight": [1280],
        "up_blocks.0.upsamplers.0.conv.weight": [1280, 1280, 3, 3],
        "up_blocks.1.attentions.2.transformer_blocks.0.attn1.to_out.0.bias": [1280],
        "up_blocks.3.resnets.0.conv_shortcut.weight": [320, 960, 1, 1],
        "up_blocks.3.attentions.2.norm.weight": [320],
        "conv_norm_out.weight": [320],
        "conv_out.weight": [4, 320, 3, 3],
    }
    assert {key: shapes.get(key) for key in known} == known


def test_an_incomplete_file_is_refused(tmp_path):
    state = stable_diffusion_part(decoder(0), unet_diffusers_rules(SMALL))
    state.pop("conv_out.weight")
    save_file(state, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors \(conv_out.weight\)"):
        load_unet(decoder(1), tmp_path / "unet.safetensors")
