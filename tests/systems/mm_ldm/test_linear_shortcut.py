"""The way that first-stage latents have past the deep networks, through z and to the output."""

from dataclasses import replace

import pytest
import torch

from soundreel.systems.mm_ldm.perceptual_encoders import (
    AudioEncoder,
    AudioEncoderConfig,
    VideoEncoder,
)
from soundreel.types import AV


def with_shortcut(config, *, stacked=0):
    """`config` with all three ends of the path, z_v and z_a wide enough for four coefficients."""
    encoder = replace(config.video_encoder, linear_shortcut=True, latent_channels=16)
    decoder = replace(config.decoder, linear_shortcut=True)
    return replace(
        config,
        video_encoder=replace(encoder, stacked_frames=stacked),
        audio_encoder=AudioEncoderConfig.like(encoder),
        decoder=decoder,
    )


def unhalved(encoder):
    return replace(encoder, channel_mult=(1,), attention_factors=(1,))


def test_slow_changes_come_back_out_of_a_new_encoder(make_config):
    """Four coefficients over twelve frames: a slow wave is given back, a fast one is not."""
    twelve = make_config(num_frames=12, key_frames=tuple(range(12)))
    config = with_shortcut(twelve, stacked=12).video_encoder
    encoder = VideoEncoder(unhalved(config))
    place = (torch.arange(12) + 0.5) / 12
    still, change = torch.randn(2, 1, 1, 4, 8, 8)
    error = []
    for turns in (3, 9):
        wave = torch.cos(torch.pi * turns * place)[None, :, None, None, None]
        clip = still + wave * change
        with torch.no_grad():
            estimate = encoder.estimate(encoder(clip).mean, torch.arange(12)[None] / 12)
        error.append(float((estimate[None] - clip).square().mean() / change.square().mean()))
    assert error[0] < 1e-8
    assert error[1] == pytest.approx(0.5, rel=1e-3)  # all of the wave, the still rest kept


def test_a_new_encoder_keeps_the_mel_image_as_it_is(make_config):
    encoder = AudioEncoder(unhalved(with_shortcut(make_config()).audio_encoder))
    image = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        latent = encoder(image).mean
        torch.testing.assert_close(latent[:, :4], image)
        torch.testing.assert_close(encoder.estimate(latent), image)


def test_a_halved_latent_gives_the_means_of_its_blocks(make_config):
    encoder = AudioEncoder(with_shortcut(make_config()).audio_encoder)
    image = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        estimate = encoder.estimate(encoder(image).mean)
    blocks = image.unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(estimate[:, :, ::2, ::2], blocks, atol=1e-5, rtol=0)
    torch.testing.assert_close(estimate[:, :, 1::2, 1::2], blocks, atol=1e-5, rtol=0)


def test_the_output_starts_as_nothing_and_learns_the_weights_of_image_and_estimate_first(
    make_config, make_model, make_inputs
):
    config = with_shortcut(make_config())
    model, inputs = make_model(config, awake=False).train(), make_inputs(config)
    prediction = model(inputs).prediction
    assert not any(bool(x.any()) for x in prediction.tensors)
    loss = sum((prediction[m] - inputs.xt[m]).square().mean() for m in ("video", "audio"))
    loss.backward()
    gradient = model.decoder.shortcut.weights.weight.grad.unflatten(0, (2, -1))
    assert bool(gradient[0].any()), "the noisy image's share"
    assert bool(gradient[1].any()), "the estimate's share"


def test_what_is_let_through_is_the_estimate_of_the_right_image(
    make_config, make_model, make_inputs
):
    """With the estimate's share at one and all else silent, the output is the estimate."""
    config = with_shortcut(make_config())
    model, inputs = make_model(config, awake=False), make_inputs(config)
    with torch.no_grad():
        model.decoder.shortcut.weights.bias[config.decoder.image_channels :] = 1.0
        latent = model.encode(AV(inputs.key_frames, inputs.audio_image)).mean
        told = model.condition(latent, inputs.frame_index, label=inputs.label)
        output = model.decoder(inputs.xt, inputs.timestep, told)
    torch.testing.assert_close(output["audio"], told.audio_estimate)
    torch.testing.assert_close(output["video"].flatten(0, 1), told.video_estimate)


def test_both_ends_must_be_there(make_config):
    config = with_shortcut(make_config())
    with pytest.raises(ValueError, match="two ends of one path"):
        replace(config, decoder=replace(config.decoder, linear_shortcut=False))
