"""The audio encoder against the reference tensors `audio_encoder`."""

import pytest
import torch
from published_mm_ldm import AUDIO_ENCODER, encoder_config, load_official

from soundreel.systems.mm_ldm.official_keys import key_table, to_official
from soundreel.systems.mm_ldm.perceptual_encoders import AudioEncoder, AudioEncoderConfig


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("audio_encoder")


@pytest.fixture
def model(reference):
    config = reference.config
    targets = zip(config["target_block_channels"], config["target_block_downsample"], strict=True)
    model = AudioEncoder(encoder_config(AudioEncoderConfig, config, list(targets))).eval()
    load_official(model, reference.weights(), AUDIO_ENCODER)
    return model


@pytest.fixture
def signal(reference):
    return reference["in/audio_latent_image"]


@torch.no_grad()
def test_posterior_agrees(reference, model, signal):
    posterior = model(signal)
    reference.check(posterior.mean, "out/mean")
    reference.check(posterior.logvar, "out/logvar")
    reference.check(posterior.kl(), "out/kl")
    reference.check(posterior.sample(reference["in/noise"]), "out/sample")


@torch.no_grad()
def test_residual_features_agree(reference, model):
    features = model.features(reference["out/mean"])
    assert len(features) == len(reference.numbered("out/feature"))
    for index, feature in enumerate(features):
        reference.check(feature, f"out/feature{index:02d}")


@torch.no_grad()
def test_mean_of_an_all_zero_input_agrees(reference, model, signal):
    """A nearly flat input is badly conditioned, hence the wider mark."""
    expected = reference["out/mean_of_zero_input"]
    assert float((model(torch.zeros_like(signal)).mean - expected).abs().max()) <= 5e-4


def test_full_size_has_the_published_parameters(mm_ldm_full_keys):
    full = mm_ldm_full_keys("audio_encoder")
    config = full["config"]
    targets = zip(config["block_channels"], config["block_downsample"], strict=True)
    with torch.device("meta"):
        model = AudioEncoder(encoder_config(AudioEncoderConfig, config, list(targets)))
    assert sum(p.numel() for p in model.parameters()) == full["parameters"]
    assert set(key_table(model, AUDIO_ENCODER).values()) == set(full["shapes"])
    exported = to_official(model, AUDIO_ENCODER, full["shapes"])
    assert {key: list(value.shape) for key, value in exported.items()} == full["shapes"]
