"""A ready-made image autoencoder: the tiny autoencoder for FLUX.2 latents, factor 8, 32 channels.

It is deterministic (no posterior) and needs no training; see `KLVAE` for the one MM-LDM trains.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.layout import channels_last

WIDTH = 64
LATENT_CHANNELS = 32


@dataclass(frozen=True, kw_only=True)
class TAEF2Config:
    """The network has no sizes to choose.

    Args:
        latent_scale: the latent handed to other networks is the encoder's output times this.
    """

    latent_scale: float = 1.0
    image_channels: int = 3
    latent_channels: int = LATENT_CHANNELS
    factor: int = 8


class TAEF2(nn.Module):
    """Image in [-1, 1] to a latent of standard deviation about one, and back.

    Source:
        The published weights `taef2_encoder` and `taef2_decoder` (O. Boer Bohan, MIT licence).
    """

    def __init__(self, config: TAEF2Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1),
            Block(),
            *(layer for _ in range(2) for layer in (_down(), Block(), Block(), Block())),
            _down(),
            *(Block(pooled=True) for _ in range(3)),
            nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            SoftClamp(),
            nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1),
            nn.ReLU(),
            *(Block(pooled=True) for _ in range(3)),
            *_up(),
            *(Block() for _ in range(3)),
            *_up(),
            *(Block() for _ in range(3)),
            *_up(),
            Block(),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
        )

    @classmethod
    def from_files(cls, encoder: Path | str, decoder: Path | str) -> "TAEF2":
        """Return the network with the published weights.

        Raises:
            SoundreelError: if a file cannot be read or holds another network.
        """
        model = cls(TAEF2Config())
        for half, path in ((model.encoder, encoder), (model.decoder, decoder)):
            try:
                stored = load_file(path)
                half.load_state_dict({key: value.float() for key, value in stored.items()})
            except (OSError, SafetensorError, RuntimeError) as error:
                raise SoundreelError(f"{path}: not the weights of taef2 ({error})") from None
        return model

    def encode(
        self,
        image: Float[Tensor, "batch channel height width"],
        noise: Float[Tensor, "batch latent_channel latent_height latent_width"] | None = None,
    ) -> Float[Tensor, "batch latent_channel latent_height latent_width"]:
        """Return latent of images; there is no posterior, so `noise` changes nothing."""
        del noise
        return self.config.latent_scale * self.encoder(channels_last((image + 1) / 2))

    def decode(
        self, latent: Float[Tensor, "batch latent_channel latent_height latent_width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Return image of a latent, about in [-1, 1]."""
        return 2 * self.decoder(channels_last(latent / self.config.latent_scale)) - 1

    def encode_frames(
        self,
        video: Float[Tensor, "batch frame channel height width"],
        noise: Float[Tensor, "batch frame latent_channel latent_height latent_width"] | None = None,
        *,
        chunk: int = 16,
    ) -> Float[Tensor, "batch frame latent_channel latent_height latent_width"]:
        """Return `encode` frame by frame, at most `chunk` images at a time."""
        del noise
        rows = rearrange(video, "b f c h w -> (b f) c h w").split(chunk)
        latent = torch.cat([self.encode(part) for part in rows])
        return rearrange(latent, "(b f) c h w -> b f c h w", b=video.shape[0])

    def decode_frames(
        self,
        latent: Float[Tensor, "batch frame latent_channel latent_height latent_width"],
        *,
        chunk: int = 16,
    ) -> Float[Tensor, "batch frame channel height width"]:
        """Return `decode` frame by frame, at most `chunk` images at a time."""
        rows = rearrange(latent, "b f c h w -> (b f) c h w").split(chunk)
        images = torch.cat([self.decode(part) for part in rows])
        return rearrange(images, "(b f) c h w -> b f c h w", b=latent.shape[0])


class Block(nn.Module):
    """Three convolutions added to their input; a `pooled` one first adds a normalised branch."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
        )
        self.pool = (
            nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )
            if pooled
            else None
        )

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return functional.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        return 3 * torch.tanh(x / 3)


def _down() -> nn.Module:
    return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)


def _up() -> tuple[nn.Module, nn.Module]:
    return nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
