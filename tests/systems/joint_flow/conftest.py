from dataclasses import dataclass

import pytest
import torch

from soundreel.systems.joint_flow.audio_codec import AudioCodec, AudioCodecConfig
from soundreel.systems.joint_flow.video_encoder import VideoEncoder, VideoEncoderConfig
from soundreel.types import AV


@dataclass(frozen=True)
class StandInBatch:
    av: AV
    label: torch.Tensor
    sample_index: int = 0


@pytest.fixture(scope="session")
def batch_of():
    """Make a training batch of pairs, all of class 0."""
    return lambda av: StandInBatch(av, torch.zeros(av.batch_size, dtype=torch.long))


@pytest.fixture(scope="session")
def smooth_frames():
    return _smooth_frames


def _smooth_frames(count, frames, size, seed=0):
    """A colour, coarse noise enlarged and fine noise: pictures with large and small parts."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 3, 4, 4, generator=generator)
    large = torch.nn.functional.interpolate(coarse, (frames, size, size), mode="trilinear")
    fine = 0.1 * torch.randn(count, frames, 3, size, size, generator=generator)
    colour = 0.5 * torch.randn(count, 1, 3, 1, 1, generator=generator)
    return colour + 0.2 * large.transpose(1, 2) + fine


@pytest.fixture(scope="session")
def small_encoder():
    """Fitted on 32-pixel pictures; four components a patch, sixteen for the layout."""
    config = VideoEncoderConfig(height=32, width=32, patch_size=8, layout_cell=4, detail_dim=4)
    encoder = VideoEncoder(config)
    batches = [_smooth_frames(8, 16, 32, seed) for seed in range(3)]
    encoder.fit(lambda: iter(batches))
    return encoder


@pytest.fixture
def small_codec():
    torch.manual_seed(0)
    config = AudioCodecConfig(
        num_mels=20,
        latent_dim=6,
        encoder_width=16,
        decoder_width=16,
        encoder_depth=(1, 1),
        decoder_depth=(1, 1),
        noise_channels=2,
    )
    codec = AudioCodec(config).eval()
    for parameter in codec.parameters():  # blocks begin as the identity, which would hide mistakes
        torch.nn.init.normal_(parameter, std=0.1)
    return codec
