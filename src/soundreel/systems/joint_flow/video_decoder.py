"""Convolutional video decoder: what the linear codec leaves out, in the domain of coefficients.

One two-dimensional pass for a group, a quarter of the cost of decoding frames. It is continuous in
time because windows overlap, and a stream needs the latents of two neighbours alone.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.layout import channels_last
from soundreel.systems.joint_flow.lapped import HOP, overlap_frames
from soundreel.systems.joint_flow.video_encoder import (
    COEFFICIENTS,
    VideoEncoder,
    VideoEncoderConfig,
)

NEIGHBOURS = 3
"""Groups that the decoder sees to decode one: the one before, itself, the one after."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoDecoderConfig:
    """Sizes of the video decoder.

    Attributes:
        widths: channels on the grid of patches, at twice and at four times its size.
        depths: residual blocks at each of these.
    """

    widths: tuple[int, int, int] = (256, 96, 64)
    depths: tuple[int, int, int] = (2, 3, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoCodecConfig:
    """Sizes of a decoder with its linear codec."""

    encoder: VideoEncoderConfig
    decoder: VideoDecoderConfig

    def build(self) -> "VideoDecoder":
        """Return the codec, to be fitted and trained or loaded."""
        return VideoDecoder(self.decoder, VideoEncoder(self.encoder))


class VideoDecoder(nn.Module):
    """Residual to the linear codec's coefficients; zero before training.

    Args:
        encoder: the fitted linear codec, kept as a frozen part of the decoder.
    """

    def __init__(self, config: VideoDecoderConfig, encoder: VideoEncoder) -> None:
        super().__init__()
        self.config = config
        self.linear = encoder
        first, second, third = config.widths
        coarse, middle, fine = config.depths
        detail_dim, patch = encoder.config.detail_dim, encoder.config.patch_size
        self.conv_in = nn.Conv2d(NEIGHBOURS * detail_dim, first, 3, padding=1)
        self.coarse = _blocks(coarse, first)
        self.enlarge = nn.Conv2d(first, 4 * second, 1)
        self.linear_in = nn.Conv2d(NEIGHBOURS * COEFFICIENTS, second, 3, padding=1)
        self.middle = _blocks(middle, second)
        self.enlarge_again = nn.Conv2d(second, 4 * third, 1)
        self.fine = _blocks(fine, third)
        self.last_factor = patch // 4
        out = COEFFICIENTS * self.last_factor**2
        self.conv_out = zero_parameters(nn.Conv2d(third, out, 3, padding=1))

    def forward(
        self, latents: Float[Tensor, "batch group token dim"]
    ) -> Float[Tensor, "batch frame 3 height width"]:
        """Return the frames that lie under two windows, `4 (group - 1)`.

        The first group is its own neighbour before, the last its own after.
        """
        first, last = latents[:, :1], latents[:, -1:]
        coefficients = self.coefficients(torch.cat([first, latents, last], dim=1))
        with torch.autocast(latents.device.type, enabled=False):
            return overlap_frames(coefficients)

    def coefficients(
        self, latents: Float[Tensor, "batch group token dim"]
    ) -> Float[Tensor, "batch inner coefficient channel height width"]:
        """Return the coefficients of all groups but the first and the last."""
        count = latents.shape[1] - 2
        with torch.autocast(latents.device.type, enabled=False):  # large parts in full precision
            linear = self.linear.coefficients(latents.float())
        detail = self.linear.detail_map(latents) / self.linear.get_buffer("detail_deviation")
        x = _with_neighbours(detail.permute(0, 1, 4, 2, 3), count)
        x = self.coarse(self.conv_in(channels_last(x)))
        x = functional.pixel_shuffle(self.enlarge(functional.relu(x)), 2)
        means = functional.avg_pool2d(linear.flatten(0, 2), self.linear.config.patch_size // 2)
        means = means.unflatten(0, (len(latents), count + 2, COEFFICIENTS // 3)).flatten(2, 3)
        x = channels_last(x + self.linear_in(channels_last(_with_neighbours(means, count))))
        x = functional.pixel_shuffle(self.enlarge_again(functional.relu(self.middle(x))), 2)
        x = self.conv_out(functional.relu(self.fine(channels_last(x))))
        residual = functional.pixel_shuffle(x, self.last_factor).to(linear)
        return linear[:, 1:-1] + residual.unflatten(1, (HOP, 3)).unflatten(0, (-1, count))


class ResidualBlock(nn.Module):
    """Two convolutions behind rectifiers, added; the identity before training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = zero_parameters(nn.Conv2d(width, width, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        return x + self.second(functional.relu(self.first(functional.relu(x))))


def _blocks(count: int, width: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))


def _with_neighbours(
    maps: Float[Tensor, "batch group channel height width"], count: int
) -> Float[Tensor, "row channels height width"]:
    """Return each inner group's channels between those of its neighbours, a row a group."""
    shifted = [maps[:, start : start + count] for start in range(NEIGHBOURS)]
    return torch.cat(shifted, dim=2).flatten(0, 1)
