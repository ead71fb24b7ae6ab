"""Stage 1 of MM-LDM: the image autoencoder with KL regularisation shared by frames and mel images.

The architecture is the first stage of Stable Diffusion (Rombach et al. 2022), at any width.
Letters: b batch, f frame, c channel, h height, w width, t token.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.attention import dot_product_attention
from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.gaussian import DiagonalGaussian
from soundreel.nn.layout import channels_last, run
from soundreel.nn.linear import Linear
from soundreel.nn.norms import group_norm
from soundreel.nn.residual import ResidualBlock, Upsample

SHORTCUT_LOGVAR = -5.0  # at the start, so that the linear map is not drowned in noise
EPS = 1e-6  # of every norm in this network; the other networks of MM-LDM use 1e-5


@dataclass(frozen=True, kw_only=True)
class KLVAEConfig:
    """Sizes; the defaults are Stable Diffusion's (83,653,863 parameters, factor 8).

    Args:
        latent_channels: of the latent (`embed_dim` in CompVis's configurations).
        z_channels: between the networks and the 1x1 projections before and after the latent; None
            is as many as the latent has.
        latent_scale: the latent handed to other networks is the posterior's sample times this;
            chosen so that its standard deviation is about one.
        linear_shortcut: False as published. True adds a linear map of each patch to the mean, and
            one back to the image, beside the networks (`PatchShortcut`): it is learned within
            minutes, where the networks alone need days to keep as much of an image.
    """

    image_channels: int = 3
    latent_channels: int = 4
    z_channels: int | None = None
    width: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    latent_scale: float = 0.18215
    linear_shortcut: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if not self.channel_mult:
            raise SoundreelError("KLVAEConfig.channel_mult is empty; give one multiple per level")
        if self.latent_channels < 1 or self.inner_channels < 1:
            raise SoundreelError(
                f"latent_channels and z_channels start at 1, got {self.latent_channels} and "
                f"{self.z_channels}"
            )

    @property
    def inner_channels(self) -> int:
        """Return the channels between the networks and the projections."""
        return self.latent_channels if self.z_channels is None else self.z_channels

    @property
    def factor(self) -> int:
        """Return pixels per latent position, each way."""
        return 2 ** (len(self.channel_mult) - 1)


class KLVAE(nn.Module):
    """Image to a diagonal Gaussian over a small latent, and back.

    Source:
        Rombach et al. 2022, section 3.1 and appendix G; used by MM-LDM for each frame and for the
        mel image alike.
    """

    def __init__(self, config: KLVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.to_moments = nn.Conv2d(2 * config.inner_channels, 2 * config.latent_channels, 1)
        self.from_latent = nn.Conv2d(config.latent_channels, config.inner_channels, 1)
        self.decoder = Decoder(config)
        self.shortcut = PatchShortcut(config) if config.linear_shortcut else None
        if self.shortcut is not None:
            zero_parameters(self.to_moments)
            zero_parameters(self.decoder.conv_out)
            assert self.to_moments.bias is not None
            nn.init.constant_(self.to_moments.bias[config.latent_channels :], SHORTCUT_LOGVAR)

    def forward(
        self,
        image: Float[Tensor, "batch channel height width"],
        noise: Float[Tensor, "batch latent_channel latent_height latent_width"],
    ) -> tuple[Float[Tensor, "batch channel height width"], DiagonalGaussian]:
        """Return a training pass: reconstruction through a drawn latent, and the posterior."""
        posterior = self.posterior(image)
        return self.decode(self.config.latent_scale * posterior.sample(noise)), posterior

    def posterior(self, image: Float[Tensor, "batch channel height width"]) -> DiagonalGaussian:
        """Return distribution of the unscaled latent of images in [-1, 1].

        Raises:
            SoundreelError: if height or width is not a multiple of the factor.
        """
        factor = self.config.factor
        if image.shape[-1] % factor or image.shape[-2] % factor:
            raise SoundreelError(
                f"image of {image.shape[-2]}x{image.shape[-1]} pixels; this autoencoder needs "
                f"multiples of {factor}: crop or resize"
            )
        mean, logvar = self.to_moments(self.encoder(channels_last(image))).chunk(2, dim=1)
        if self.shortcut is not None:
            mean = mean + self.shortcut.to_latent(image)
        return DiagonalGaussian.from_parameters(mean, logvar)

    def encode(
        self,
        image: Float[Tensor, "batch channel height width"],
        noise: Float[Tensor, "batch latent_channel latent_height latent_width"] | None = None,
    ) -> Float[Tensor, "batch latent_channel latent_height latent_width"]:
        """Return scaled latent: drawn with the given noise, or the mean without."""
        posterior = self.posterior(image)
        latent = posterior.mean if noise is None else posterior.sample(noise)
        return self.config.latent_scale * latent

    def decode(
        self, latent: Float[Tensor, "batch latent_channel latent_height latent_width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Return image of a scaled latent, about in [-1, 1] but not clamped."""
        latent = channels_last(latent / self.config.latent_scale)
        image = self.decoder(self.from_latent(latent))
        return image if self.shortcut is None else image + self.shortcut.to_image(latent)

    def encode_frames(
        self,
        video: Float[Tensor, "batch frame channel height width"],
        noise: Float[Tensor, "batch frame latent_channel latent_height latent_width"] | None = None,
        *,
        chunk: int = 16,
    ) -> Float[Tensor, "batch frame latent_channel latent_height latent_width"]:
        """Return `encode` frame by frame, at most `chunk` images at a time so that memory is
        bounded."""
        images = rearrange(video, "b f c h w -> (b f) c h w").split(chunk)
        parts = len(images) * [None]
        if noise is not None:
            parts = rearrange(noise, "b f c h w -> (b f) c h w").split(chunk)
        rows = torch.cat([self.encode(i, n) for i, n in zip(images, parts, strict=True)])
        return rearrange(rows, "(b f) c h w -> b f c h w", b=video.shape[0])

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


class PatchShortcut(nn.Module):
    """Linear maps between the pixels of a patch and the latent at its position.

    They start as the cosine coefficients of lowest frequency, of brightness first and then of two
    colour differences, each divided by the size it usually has in pictures (falling with frequency)
    so that all channels of the latent are about equally large.
    """

    def __init__(self, config: KLVAEConfig) -> None:
        super().__init__()
        colours, channels, factor = config.image_channels, config.latent_channels, config.factor
        self.to_latent = nn.Conv2d(colours, channels, factor, stride=factor, bias=False)
        self.to_image = nn.ConvTranspose2d(channels, colours, factor, stride=factor, bias=False)
        basis, size = _patch_basis(colours, factor, channels)
        with torch.no_grad():
            self.to_latent.weight.copy_(basis / size[:, None, None, None])
            self.to_image.weight.copy_(basis * size[:, None, None, None])


def _patch_basis(
    num_colours: int, factor: int, count: int
) -> tuple[Float[Tensor, "count colour row column"], Float[Tensor, " count"]]:
    """Return orthonormal patches, the most telling first, and the usual size of their
    coefficients."""
    waves = _cosines(factor)
    colours = _cosines(num_colours)
    # A colour difference weighs about as much as brightness two steps of frequency higher.
    order = sorted(
        (row + column + 2 * bool(colour), colour, row, column)
        for colour in range(num_colours)
        for row in range(factor)
        for column in range(factor)
    )
    chosen = [place[1:] for place in order[:count]]
    patches = [torch.einsum("k,i,j->kij", colours[k], waves[i], waves[j]) for k, i, j in chosen]
    sizes = [(2.0 if k else 5.0) / (1 + 3.3 * (i + j)) for k, i, j in chosen]
    return torch.stack(patches), torch.tensor(sizes)


def _cosines(count: int) -> Float[Tensor, "frequency place"]:
    """Return the orthonormal cosine transform of so many values."""
    places = (torch.arange(count) + 0.5) / count
    waves = torch.cos(torch.pi * torch.arange(count)[:, None] * places)
    return waves / waves.norm(dim=1, keepdim=True)


class Encoder(nn.Module):
    def __init__(self, config: KLVAEConfig) -> None:
        super().__init__()
        self.recompute = config.gradient_checkpointing
        widths = [config.width * mult for mult in config.channel_mult]
        self.conv_in = nn.Conv2d(config.image_channels, config.width, 3, padding=1)
        self.levels = nn.ModuleList()
        for index, width in enumerate(widths):
            blocks = _blocks(([config.width, *widths])[index], width, config.num_res_blocks)
            is_last = index == len(widths) - 1
            self.levels.append(Level(blocks, None if is_last else PaddedDownsample(width)))
        self.middle = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.inner_channels, 3, padding=1)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> Tensor:
        h = self.conv_in(image)
        for level in self.levels:
            h = run(level, h, recompute=self.recompute)
        h = run(self.middle, h, recompute=self.recompute)
        return self.conv_out(functional.silu(self.norm_out(h)))


class Decoder(nn.Module):
    """Its levels are numbered like the encoder's, so that the last one runs first."""

    def __init__(self, config: KLVAEConfig) -> None:
        super().__init__()
        self.recompute = config.gradient_checkpointing
        widths = [config.width * mult for mult in config.channel_mult]
        self.conv_in = nn.Conv2d(config.inner_channels, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1])
        self.levels = nn.ModuleList()
        for index, width in enumerate(widths):
            blocks = _blocks([*widths, widths[-1]][index + 1], width, config.num_res_blocks + 1)
            self.levels.append(Level(blocks, Upsample(width) if index else None))
        self.norm_out = group_norm(widths[0], eps=EPS)
        self.conv_out = nn.Conv2d(widths[0], config.image_channels, 3, padding=1)

    @property
    def last_layer(self) -> Tensor:
        """Return the weight at which the gradients of two losses can be compared."""
        return self.conv_out.weight

    def forward(self, latent: Float[Tensor, "batch channel height width"]) -> Tensor:
        h = run(self.middle, self.conv_in(latent), recompute=self.recompute)
        for level in reversed(self.levels):
            h = run(level, h, recompute=self.recompute)
        return self.conv_out(functional.silu(self.norm_out(h)))


def _blocks(in_channels: int, out_channels: int, count: int) -> nn.ModuleList:
    widths = [in_channels] + count * [out_channels]
    return nn.ModuleList(
        ResidualBlock(widths[i], out_channels, eps=EPS, zero_init=False) for i in range(count)
    )


class Level(nn.Module):
    """Residual blocks of one resolution, then the way to the next."""

    def __init__(self, blocks: nn.ModuleList, resample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = blocks
        self.resample = resample

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.resample is None else self.resample(x)


class Middle(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(channels, channels, eps=EPS, zero_init=False)
        self.attention = ImageAttention(channels)
        self.block2 = ResidualBlock(channels, channels, eps=EPS, zero_init=False)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        return self.block2(self.attention(self.block1(x)))


class ImageAttention(nn.Module):
    """Single-head self-attention over the positions of an image, added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels, eps=EPS)
        self.query = Linear(channels, channels)
        self.key = Linear(channels, channels)
        self.value = Linear(channels, channels)
        self.out = Linear(channels, channels)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        tokens = rearrange(self.norm(x), "b c h w -> b 1 (h w) c")
        mixed = dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens))
        out = rearrange(self.out(mixed), "b 1 (h w) c -> b c h w", h=x.shape[2])
        return x + out.to(x.dtype)


class PaddedDownsample(nn.Module):
    """3x3 convolution with stride 2 whose only padding is one pixel right and bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        return self.conv(functional.pad(x, (0, 1, 0, 1)))
