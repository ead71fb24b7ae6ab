"""A small autoencoder and inputs for it, with every path awake."""

from dataclasses import replace

import pytest
import torch

from soundreel.systems.mm_ldm.autoencoder import (
    AutoencoderConfig,
    AutoencoderInputs,
    MultiModalAutoencoder,
)
from soundreel.systems.mm_ldm.perceptual_encoders import AudioEncoderConfig, VideoEncoderConfig
from soundreel.systems.mm_ldm.semantic import ProjectorConfig
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.types import AV


def small_config(*, num_classes=3, key_frames=(0, 2), num_frames=4, **decoder_changes):
    decoder = SignalDecoderConfig(
        image_size=8,
        width=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_factors=(1, 2),
        num_heads=4,
        context_dim=32,
        num_classes=num_classes,
        **decoder_changes,
    )
    encoder = VideoEncoderConfig(
        image_size=8,
        latent_channels=6,
        width=32,
        num_res_blocks=1,
        head_width=16,
        feature_channels=tuple(channels for channels, _ in decoder.feature_blocks),
        feature_factors=tuple(factor for _, factor in decoder.feature_blocks),
    )
    projector = ProjectorConfig(
        semantic_dim=32,
        width=16,
        channel_mult=(1, 2),
        num_res_blocks=1,
        head_width=16,
        attention_factors=(1, 2),
    )
    return AutoencoderConfig(
        video_encoder=encoder,
        audio_encoder=AudioEncoderConfig.like(encoder),
        video_projector=projector,
        audio_projector=projector,
        decoder=decoder,
        num_frames=num_frames,
        key_frames=key_frames,
        num_prompt_tokens=3,
        contrastive_dim=16,
    )


def wake(model, seed=1, scale=0.3):
    """Random values in place of all zeros, so that no path is silent."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def small_inputs(config, batch=2, frames=2, seed=2):
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=generator)

    return AutoencoderInputs(
        key_frames=randn(batch, len(config.key_frames), 4, 8, 8),
        audio_image=randn(batch, 4, 8, 8),
        xt=AV(randn(batch, frames, 4, 8, 8), randn(batch, 4, 8, 8)),
        timestep=AV(
            torch.randint(1000, (batch, frames), generator=generator),
            torch.randint(1000, (batch,), generator=generator),
        ),
        frame_index=torch.arange(frames).expand(batch, -1) / config.num_frames,
        label=torch.arange(batch) % 3 if config.decoder.num_classes else None,
    )


@pytest.fixture
def make_config():
    return small_config


@pytest.fixture
def make_model():
    def make(config, *, awake=True):
        torch.manual_seed(0)
        model = MultiModalAutoencoder(config)
        return (wake(model) if awake else model).eval()

    return make


@pytest.fixture
def make_inputs():
    return small_inputs


@pytest.fixture
def changed():
    return replace
