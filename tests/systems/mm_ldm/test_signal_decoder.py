"""Initialisation of the signal decoder's conditioning maps, and what it does to learning."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.types import AV

MAPS = ("video_content", "audio_content", "video_context", "audio_context")


def train(model, inputs, steps=6):
    target = inputs.xt.map(lambda x: torch.roll(x, 1, dims=-1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        out = model(inputs).prediction
        loss = sum((out[m] - target[m]).square().mean() for m in ("video", "audio"))
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("map_init", ["last", "both"])
def test_double_zero_maps_stay_dead_while_single_zero_maps_learn(
    make_config, make_model, make_inputs, map_init
):
    """With both layers zero, no weight of a map ever gets a gradient: z and s stay unheard."""
    config = make_config(map_init=map_init)
    inputs = make_inputs(config)
    model = train(make_model(config, awake=False).train(), inputs)
    for name in MAPS:
        layers = getattr(model.decoder, name)
        weights = [layers.first.weight, layers.first.bias, layers.last.weight]
        if map_init == "both":
            assert all(not w.any() and not w.grad.any() for w in weights), name
            assert layers.last.bias.any(), "only the last bias moves"
        else:
            assert layers.last.weight.any(), name
            assert layers.first.weight.grad.any(), name


def test_after_release_training_the_semantics_change_nothing(make_config, make_model, make_inputs):
    config = make_config(map_init="both")
    inputs = make_inputs(config)
    model = train(make_model(config, awake=False).train(), inputs).eval()
    told = model.condition(
        model.encode(_signals(inputs)).mean, inputs.frame_index, label=inputs.label
    )
    noise = told.semantic.map(torch.randn_like)
    with torch.no_grad():
        before = model.decoder(inputs.xt, inputs.timestep, told)
        after = model.decoder(inputs.xt, inputs.timestep, replace(told, semantic=noise))
    assert torch.equal(before["video"], after["video"])
    assert torch.equal(before["audio"], after["audio"])


@torch.no_grad()
def test_attention_is_one_fused_kernel(make_config, make_model, make_inputs):
    config = make_config()
    inputs, model = make_inputs(config), make_model(config).eval()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # any other is an error
        told = model.condition(
            model.encode(_signals(inputs)).mean, inputs.frame_index, label=inputs.label
        )
        model.decoder(inputs.xt, inputs.timestep, told)


def _signals(inputs):
    return AV(inputs.key_frames, inputs.audio_image)


def test_a_frozen_time_embedding_keeps_its_values(make_config, make_model, make_inputs):
    config = make_config(freeze_time_embedding=True)
    model = make_model(config).train()
    before = model.decoder.time_embed.first.weight.clone()
    train(model, make_inputs(config), steps=2)
    assert torch.equal(model.decoder.time_embed.first.weight, before)


def test_features_of_one_modality_alone_are_refused(make_config, make_model, make_inputs):
    config = make_config()
    model, inputs = make_model(config), make_inputs(config)
    told = model.condition(
        model.encode(_signals(inputs)).mean, inputs.frame_index, label=inputs.label
    )
    with pytest.raises(ValueError, match="one modality only"):
        model.decoder(inputs.xt, inputs.timestep, replace(told, audio_features=None))
    with pytest.raises(ValueError, match="one label per clip"):
        model.decoder(inputs.xt, inputs.timestep, replace(told, label=None))


def test_latents_of_another_size_are_refused(make_config, make_model, make_inputs):
    config = make_config()
    model, inputs = make_model(config), make_inputs(config)
    told = model.condition(
        model.encode(_signals(inputs)).mean, inputs.frame_index, label=inputs.label
    )
    larger = inputs.xt.map(lambda x: x.repeat_interleave(2, dim=-1))
    with pytest.raises(ValueError, match="expected"):
        model.decoder(larger, inputs.timestep, told)


def test_odd_options_are_refused():
    with pytest.raises(ValueError, match="pooled"):
        SignalDecoderConfig(latent_embedding="mean")
    with pytest.raises(ValueError, match="multiple of"):
        SignalDecoderConfig(image_size=20)
