"""MM-Diffusion's second stage: a diffusion U-Net that enlarges single frames.

The upsampler of guided diffusion (Dhariwal and Nichol 2021, appendix; MM-Diffusion's supplement,
Table 1). It sees the noisy large image beside the enlarged small one and predicts the noise and an
interpolation of the variance.

Parameters are named as in the published checkpoints, which therefore load as they are. Resampling
blocks resample before their first convolution here; those of the Coupled U-Net do so after it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from soundreel.diffusion.denoiser import Denoiser, Prediction
from soundreel.diffusion.process import PredictionType
from soundreel.errors import SoundreelError
from soundreel.nn.attention import dot_product_attention
from soundreel.nn.embeddings import sinusoidal_embedding, zero_parameters
from soundreel.nn.layout import channels_last, run, to_channels_last
from soundreel.nn.linear import linear
from soundreel.nn.norms import GroupNorm
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperResolutionConfig:
    """Sizes of the upsampling U-Net; the defaults are the published 64-to-256 network.

    Attributes:
        low_res_size, size: pixels along each side of the small and of the large image; what the
            network is trained for, while it accepts other sizes.
        image_channels: channels of an image.
        width: channels at full resolution; `channel_mult` multiplies it level by level.
        num_res_blocks: residual blocks per level, besides the resampling one.
        attention_factors: downsampling factors (1, 2, 4, ...) with self-attention.
        num_heads: attention heads at every level.
        head_width: channels per head; 0 uses `num_heads` heads, else their number follows.
        scale_shift_norm: the step's embedding scales and shifts after the norm, instead of being
            added before it.
        learned_variance: double the output channels; the second half interpolates the variance.
        prediction_type: what the first half of the output estimates: the noise as published, or
            "v", from which few steps give a picture close to the expected one.
        residual_scale: 0 makes the picture itself, as published. Otherwise what is made of noise is
            its difference from bicubic enlargement, times this: a short training then starts from
            that enlargement instead of from nothing. Excludes learned variance.
        num_groups: groups of every group normalisation; divides every channel count.
    """

    low_res_size: int = 64
    size: int = 256
    image_channels: int = 3
    width: int = 192
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    num_res_blocks: int = 2
    attention_factors: tuple[int, ...] = (8, 16, 32)
    num_heads: int = 4
    head_width: int = 0
    scale_shift_norm: bool = True
    learned_variance: bool = True
    prediction_type: PredictionType = "epsilon"
    residual_scale: float = 0.0
    dropout: float = 0.0
    num_groups: int = 32

    def __post_init__(self) -> None:
        factors = [2**level for level in range(len(self.channel_mult))]
        if not set(self.attention_factors) <= set(factors):
            raise SoundreelError(
                f"attention_factors {self.attention_factors} must be among {factors}, the "
                f"downsampling factors of {len(factors)} levels"
            )
        if self.size % self.low_res_size or self.size % factors[-1]:
            raise SoundreelError(
                f"size {self.size} must be a multiple of low_res_size {self.low_res_size} and of "
                f"{factors[-1]}, the factor of the deepest level"
            )
        for channels in {self.width * mult for mult in self.channel_mult}:
            if channels % self.num_groups or channels % self.heads(channels):
                raise SoundreelError(
                    f"{channels} channels must divide into {self.num_groups} norm groups and "
                    f"{self.heads(channels)} heads; change width, channel_mult, num_groups or "
                    "num_heads"
                )
        if self.residual_scale < 0 or (self.residual_scale and self.learned_variance):
            raise SoundreelError(
                "residual_scale starts at 0 and, above it, needs learned_variance=False, got "
                f"{self.residual_scale} and {self.learned_variance}"
            )
        if not 0 <= self.dropout < 1:
            raise SoundreelError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def out_channels(self) -> int:
        return self.image_channels * (2 if self.learned_variance else 1)

    @property
    def scale(self) -> int:
        """Return how many times larger each side becomes."""
        return self.size // self.low_res_size

    def heads(self, channels: int) -> int:
        return max(1, channels // self.head_width) if self.head_width else self.num_heads


class ResidualBlock(nn.Module):
    """Twice norm, SiLU, convolution, with the step's embedding between, added to the input."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        config: SuperResolutionConfig,
        resample: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.scale_shift_norm = config.scale_shift_norm
        self.in_layers = nn.Sequential(
            GroupNorm(config.num_groups, in_channels),
            nn.SiLU(),
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(4 * config.width, out_channels * (1 + config.scale_shift_norm))
        )
        self.out_layers = nn.Sequential(
            GroupNorm(config.num_groups, out_channels),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            zero_parameters(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        self.skip_connection = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(
        self, x: Float[Tensor, "batch channel height width"], embedding: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch out_channel out_height out_width"]:
        h = self.in_layers[:2](x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.in_layers[2](h)
        embedding = self.emb_layers(embedding)[:, :, None, None].to(h.dtype)
        if self.scale_shift_norm:
            scale, shift = embedding.chunk(2, dim=1)
            h = torch.addcmul(shift, self.out_layers[0](h), 1 + scale)
            h = self.out_layers[1:](h)
        else:
            h = self.out_layers(h + embedding)
        return self.skip_connection(x) + h


class SelfAttention(nn.Module):
    """Self-attention over the positions of an image, added to it.

    The joint projection is split into heads first, each head then into query, key and value.
    """

    def __init__(self, channels: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = GroupNorm(num_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_parameters(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        tokens = rearrange(self.norm(x), "b c h w -> b (h w) c")
        # Stored as convolutions of width 1, computed as products, which need no copy of the tokens.
        qkv = linear(tokens, self.qkv.weight[..., 0], self.qkv.bias)
        query, key, value = rearrange(
            qkv, "b t (head three d) -> three b head t d", head=self.num_heads, three=3
        )
        mixed = dot_product_attention(query, key, value)
        mixed = rearrange(mixed, "b head t d -> b t (head d)")
        out = linear(mixed, self.proj_out.weight[..., 0], self.proj_out.bias)
        return x + rearrange(out, "b (h w) c -> b c h w", h=x.shape[2])


class SuperResolutionUNet(nn.Module):
    """Predicts noise and variance of a noisy large image, given the small one.

    Attributes:
        recompute: keep only the inputs of each stage for the backward pass, and run it again there.

    Source:
        Dhariwal and Nichol 2021, section 3 and appendix (upsampling stack); 311,027,910 parameters
        in the default configuration.
    """

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        width, dim = config.width, 4 * config.width
        self.time_embed = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))

        channels = width * config.channel_mult[0]
        stem = nn.Conv2d(2 * config.image_channels, channels, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.ModuleList([stem])])
        skips = [channels]
        last = len(config.channel_mult) - 1
        for level, mult in enumerate(config.channel_mult):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(self._stage(channels, mult * width, level))
                channels = mult * width
                skips.append(channels)
            if level < last:
                down = ResidualBlock(channels, channels, config, _halved)
                self.input_blocks.append(nn.ModuleList([down]))
                skips.append(channels)

        self.middle_block = nn.ModuleList(
            [
                ResidualBlock(channels, channels, config),
                self._attention(channels),
                ResidualBlock(channels, channels, config),
            ]
        )
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            out_channels = config.channel_mult[level] * width
            for index in range(config.num_res_blocks + 1):
                stage = self._stage(channels + skips.pop(), out_channels, level)
                channels = out_channels
                if level and index == config.num_res_blocks:
                    stage.append(ResidualBlock(channels, channels, config, _doubled))
                self.output_blocks.append(stage)
        self.out = nn.Sequential(
            GroupNorm(config.num_groups, channels),
            nn.SiLU(),
            zero_parameters(nn.Conv2d(channels, config.out_channels, 3, padding=1)),
        )
        to_channels_last(self)

    def _stage(self, in_channels: int, out_channels: int, level: int) -> nn.ModuleList:
        stage = nn.ModuleList([ResidualBlock(in_channels, out_channels, self.config)])
        if 2**level in self.config.attention_factors:
            stage.append(self._attention(out_channels))
        return stage

    def _attention(self, channels: int) -> SelfAttention:
        return SelfAttention(channels, self.config.heads(channels), self.config.num_groups)

    def forward(
        self,
        noisy: Float[Tensor, "batch channel height width"],
        low_res: Float[Tensor, "batch channel low_height low_width"],
        timestep: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch out_channel height width"]:
        """Return noise estimate and, with learned variance, its interpolation output along the
        channels.

        Args:
            noisy: x_t, the large image.
            low_res: the small image, about [-1, 1]; enlarged bilinearly to the large one's size.
            timestep: step of the original chain.
        """
        enlarged = functional.interpolate(low_res, noisy.shape[2:], mode="bilinear")
        embedding = self.time_embed(sinusoidal_embedding(timestep, self.config.width))
        h = torch.cat([noisy, enlarged], dim=1)
        h = channels_last(h)
        skips = []
        for stage in self.input_blocks:
            h = self._run(stage, h, embedding)
            skips.append(h)
        h = self._run(self.middle_block, h, embedding)
        for stage in self.output_blocks:
            h = self._run(stage, torch.cat([h, skips.pop()], dim=1), embedding)
        # The head stays in float32 under autocast: its output is what the sampler integrates.
        with torch.autocast(h.device.type, enabled=False):
            return self.out(h.float())

    def _run(self, stage: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        return run(_run_stage, stage, h, embedding, recompute=self.recompute)


def to_residual(
    image: Float[Tensor, "batch channel height width"],
    low_res: Float[Tensor, "batch channel low_height low_width"],
    scale: float,
) -> Float[Tensor, "batch channel height width"]:
    """Return what the network diffuses: the image, or its scaled difference from bicubic
    enlargement."""
    return (image - _bicubic(low_res, image)) * scale if scale else image


def from_residual(
    residual: Float[Tensor, "batch channel height width"],
    low_res: Float[Tensor, "batch channel low_height low_width"],
    scale: float,
) -> Float[Tensor, "batch channel height width"]:
    """Return inverse of `to_residual`; images that were differences are limited to [-1, 1]."""
    if not scale:
        return residual
    return (residual / scale + _bicubic(low_res, residual)).clamp(-1, 1)


def _bicubic(low_res: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(low_res, like.shape[2:], mode="bicubic")


def super_resolution_denoiser(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    low_res: Float[Tensor, "batch channel low_height low_width"],
    *,
    learned_variance: bool = True,
) -> Denoiser:
    """Return the network with its small images filled in, as losses and samplers want it.

    The denoiser works on `AV(video=images, audio=None)` with images `batch channel height width`.
    """

    def denoiser(xt: AV, timestep: Int[Tensor, " batch"]) -> Prediction:
        output = network(xt["video"], low_res, timestep)
        if not learned_variance:
            return Prediction(AV(output, None))
        mean, variance = output.chunk(2, dim=1)
        return Prediction(AV(mean, None), AV(variance, None))

    return denoiser


def _run_stage(stage: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for layer in stage.children():
        h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
    return h


def _halved(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 2)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
