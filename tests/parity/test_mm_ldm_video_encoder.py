"""The video encoder against the reference tensors `video_encoder`."""

import pytest
import torch
from einops import rearrange
from published_mm_ldm import VIDEO_ENCODER, encoder_config, load_official

from soundreel.systems.mm_ldm.official_keys import key_table, to_official
from soundreel.systems.mm_ldm.perceptual_encoders import VideoEncoder, VideoEncoderConfig


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("video_encoder")


@pytest.fixture
def model(reference):
    config = reference.config
    targets = zip(config["target_block_channels"], config["target_block_downsample"], strict=True)
    model = VideoEncoder(encoder_config(VideoEncoderConfig, config, list(targets))).eval()
    load_official(model, reference.weights(), VIDEO_ENCODER)
    return model


@pytest.fixture
def signal(reference):
    return rearrange(reference["in/key_frames"], "b c f h w -> b f c h w")


@torch.no_grad()
def test_posterior_agrees(reference, model, signal):
    posterior = model(signal)
    reference.check(posterior.mean, "out/mean")
    reference.check(posterior.logvar, "out/logvar")
    reference.check(posterior.kl(), "out/kl")
    reference.check(posterior.sample(reference["in/noise"]), "out/sample")


@torch.no_grad()
def test_residual_features_agree(reference, model):
    features = model.features(reference["out/mean"], reference["in/frame_index"])
    assert len(features) == len(reference.numbered("out/feature"))
    for index, feature in enumerate(features):
        reference.check(feature, f"out/feature{index:02d}")


@torch.no_grad()
def test_mean_of_an_all_zero_input_agrees(reference, model, signal):
    """A nearly flat input is badly conditioned, hence the wider mark."""
    expected = reference["out/mean_of_zero_input"]
    assert float((model(torch.zeros_like(signal)).mean - expected).abs().max()) <= 5e-4


def test_full_size_has_the_published_parameters(mm_ldm_full_keys):
    full = mm_ldm_full_keys("video_encoder")
    config = full["config"]
    targets = zip(config["block_channels"], config["block_downsample"], strict=True)
    with torch.device("meta"):
        model = VideoEncoder(encoder_config(VideoEncoderConfig, config, list(targets)))
    assert sum(p.numel() for p in model.parameters()) == full["parameters"]
    assert set(key_table(model, VIDEO_ENCODER).values()) == set(full["shapes"])
    exported = to_official(model, VIDEO_ENCODER, full["shapes"])
    assert {key: list(value.shape) for key, value in exported.items()} == full["shapes"]
