"""Stage 2 of MM-LDM, decoding: one diffusion U-Net for the latents of frames and of the mel image.

The U-Net is Stable Diffusion v1's (Rombach et al. 2022). Rows are images: the audio rows of all
clips first, then the frames clip by clip. Letters: b batch, f frame, r row, c channel, h height,
w width, t token, d dim.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.embeddings import TwoLayerMLP, sinusoidal_embedding, zero_parameters
from soundreel.nn.layout import channels_last, run
from soundreel.nn.norms import group_norm
from soundreel.nn.residual import Downsample, ResidualBlock, Upsample
from soundreel.systems.mm_ldm.transformer import SpatialTransformer
from soundreel.types import AV, LatentSpec

PUBLISHED = LatentSpec()


@dataclass(frozen=True, kw_only=True)
class SignalDecoderConfig:
    """Sizes; the defaults are MM-LDM's for Landscape, apart from the choices named below.

    Args:
        image_channels, image_size: of the first-stage latent images that are denoised.
        attention_factors: down-factors of the levels with a transformer (1 = full size).
        num_classes: rows of the class table; 0 leaves the class token out.
        latent_embedding: how z joins the timestep embedding: `"pooled"` (mean over positions, as
            the paper says) or `"flattened"` (as the release does; 7 M + 3 M more weights).
        map_init: `"last"` zeroes only the last layer of the four conditioning maps; `"both"` is
            the release's initialisation, with which they can never learn.
        linear_shortcut: False as published. True lets the noisy image, and the encoders' linear
            estimate of the clean one, pass to the output beside the network, weighted by the step.
        freeze_time_embedding: keep the timestep map at its starting values, as the release does.
    """

    # The encoders say these.
    old_keys: ClassVar[Mapping[str, str | None]] = dict.fromkeys(
        ("video_latent_shape", "audio_latent_shape")
    )
    removed: ClassVar[Mapping[str, Any]] = {"learned_null_class": False}

    image_channels: int = 4
    image_size: int = 32
    width: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_factors: tuple[int, ...] = (1, 2, 4)
    num_heads: int = 8
    transformer_depth: int = 1
    context_dim: int = 768
    num_classes: int = 9
    latent_embedding: str = "pooled"
    map_init: str = "last"
    linear_shortcut: bool = False
    freeze_time_embedding: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.latent_embedding not in ("pooled", "flattened"):
            raise SoundreelError(
                f"latent_embedding is 'pooled' or 'flattened', got {self.latent_embedding!r}"
            )
        factor = 2 ** (len(self.channel_mult) - 1)
        if self.image_size % factor:
            raise SoundreelError(
                f"image_size {self.image_size} is not a multiple of {factor}; "
                "use fewer levels in channel_mult or another size"
            )

    @property
    def feature_blocks(self) -> list[tuple[int, int]]:
        """Return channels and down-factor of every block of the downsampling half, in order."""
        blocks = [(self.width, 1)]
        for level, mult in enumerate(self.channel_mult):
            if level:
                blocks.append((blocks[-1][0], 2**level))
            blocks += self.num_res_blocks * [(self.width * mult, 2**level)]
        return blocks


@dataclass(frozen=True, kw_only=True)
class DecoderCondition:
    """Everything the decoder is told, per clip; a modality that is not decoded may be absent.

    Args:
        prompt: `batch token dim` tokens that tell video from audio (zeros when dropped), or a
            text encoder's states.
        label: class numbers, or None for a decoder without classes.
        semantic: `batch dim height width` grids s_v and s_a; each modality attends to the other's.
        latent: z_v and z_a.
        video_features, audio_features: residual features per block, rows as in the decoder.
        video_estimate, audio_estimate: linear estimates of the clean images, likewise.
    """

    prompt: AV
    label: Int[Tensor, " batch"] | None
    semantic: AV
    latent: AV
    video_features: Sequence[Tensor] | None
    audio_features: Sequence[Tensor] | None
    video_estimate: Tensor | None = None
    audio_estimate: Tensor | None = None


class SignalDecoder(nn.Module):
    """Prediction for noisy latents of frames and mel images, at one timestep per image.

    Args:
        latents: shapes of z_v and z_a, which the decoder is told; the published ones by default.

    Source:
        MM-LDM, appendix 1.2 (871,725,764 parameters as released with 9 classes).
    """

    def __init__(self, config: SignalDecoderConfig, latents: LatentSpec = PUBLISHED) -> None:
        super().__init__()
        self.config = config
        self.recompute = config.gradient_checkpointing
        width, embedding = config.width, 4 * config.width
        self.time_embed = TwoLayerMLP(width, embedding, embedding)
        if config.freeze_time_embedding:
            self.time_embed.requires_grad_(False)
        content_dims = [
            shape[0] if config.latent_embedding == "pooled" else math.prod(shape)
            for shape in (latents.video_shape, latents.audio_shape)
        ]
        init, context_dim = config.map_init, config.context_dim
        self.video_content = TwoLayerMLP(content_dims[0], embedding, embedding, zero_init=init)
        self.audio_content = TwoLayerMLP(content_dims[1], embedding, embedding, zero_init=init)
        self.video_context = TwoLayerMLP(context_dim, context_dim, context_dim, zero_init=init)
        self.audio_context = TwoLayerMLP(context_dim, context_dim, context_dim, zero_init=init)
        classes = config.num_classes
        self.class_embed = nn.Embedding(classes, context_dim) if classes else None
        self.encoder = _downsampling_half(config)
        channels = config.width * config.channel_mult[-1]
        self.middle = MiddleBlock(config, channels)
        self.decoder = _upsampling_half(config)
        self.norm_out = group_norm(width)
        self.conv_out = zero_parameters(nn.Conv2d(width, config.image_channels, 3, padding=1))
        self.shortcut = LinearShortcut(config) if config.linear_shortcut else None

    def forward(self, xt: AV, timestep: AV, condition: DecoderCondition) -> AV:
        """Return network output for the modalities present in `xt`.

        Args:
            xt: noisy first-stage latents, video `batch frame channel height width`, audio `batch
                channel height width`; either may be absent.
            timestep: integers, video `batch frame`, audio `batch`: every image has its own.
        """
        if len({x.shape[-2:] for x in xt.tensors}) > 1:  # a mel image of its own aspect
            alone = (AV(xt.video, None), AV(None, xt.audio))
            video, audio = (self(part, timestep, condition) for part in alone)
            return AV(video.video, audio.audio)
        rows, steps, sources, features, estimates = [], [], [], [], []
        if xt.audio is not None:
            rows.append(xt.audio)
            steps.append(timestep["audio"])
            sources.append(torch.arange(xt.audio.shape[0], device=xt.device))
            features.append(condition.audio_features)
            estimates.append(condition.audio_estimate)
        if xt.video is not None:
            batch, num_frames = xt.video.shape[:2]
            rows.append(rearrange(xt.video, "b f c h w -> (b f) c h w"))
            steps.append(timestep["video"].flatten())
            first = 0 if xt.audio is None else batch
            clips = torch.arange(first, first + batch, device=xt.device)
            sources.append(clips.repeat_interleave(num_frames))
            features.append(condition.video_features)
            estimates.append(condition.video_estimate)
        self._check(xt, condition)
        source = torch.cat(sources)
        embedding = self.embedding(torch.cat(steps), source, xt.present, condition)
        context = self.context(xt.present, condition)
        x = torch.cat(rows)
        if self.shortcut is None:
            out = self._unet(x, embedding, context, source, _stack(features))
        else:
            estimate = torch.cat(estimates).to(x.dtype)
            inlet = self.shortcut.into(channels_last(estimate))
            out = self._unet(x, embedding, context, source, _stack(features), inlet)
            out = out + self.shortcut(x, estimate, embedding)
        if xt.video is None:
            return AV(None, out)
        video = rearrange(out[-len(rows[-1]) :], "(b f) c h w -> b f c h w", b=len(xt.video))
        return AV(video, None if xt.audio is None else out[: len(xt.audio)])

    def embedding(
        self,
        timestep: Int[Tensor, " row"],
        source: Int[Tensor, " row"],
        present: tuple[str, ...],
        condition: DecoderCondition,
    ) -> Float[Tensor, "row dim"]:
        """Return timestep embedding plus the map of the row's own perceptual latent."""
        contents = []
        for modality in reversed(present):  # audio rows first
            latent = condition.latent[modality]
            pooled = self.config.latent_embedding == "pooled"
            flat = latent.mean(dim=(2, 3)) if pooled else latent.flatten(1)
            contents.append(getattr(self, f"{modality}_content")(flat))
        time = self.time_embed(sinusoidal_embedding(timestep, self.config.width))
        return time + torch.cat(contents)[source]

    def context(
        self, present: tuple[str, ...], condition: DecoderCondition
    ) -> Float[Tensor, "source token dim"]:
        """Return per modality and clip: its prompt, the class token, the other modality's
        semantics."""
        contexts = []
        for modality in reversed(present):
            other = "audio" if modality == "video" else "video"
            tokens = rearrange(condition.semantic[other], "b d h w -> b (h w) d")
            parts = [condition.prompt[modality]]
            if self.class_embed is not None:
                assert condition.label is not None  # _check has said so in words
                parts.append(self.class_embed(condition.label)[:, None])
            # Each map belongs to the modality whose tokens it reads.
            parts.append(getattr(self, f"{other}_context")(tokens))
            contexts.append(torch.cat([part.to(tokens.dtype) for part in parts], dim=1))
        return torch.cat(contexts)

    def _unet(
        self,
        x: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"],
        context: Float[Tensor, "source token context_dim"],
        source: Int[Tensor, " row"],
        features: Sequence[Tensor] | None,
        inlet: Float[Tensor, "row width_ height width"] | None = None,
    ) -> Float[Tensor, "row channel height width"]:
        h, skips = channels_last(x), []
        for index, block in enumerate(self.encoder):
            h = run(block, h, embedding, context, source, recompute=self.recompute)
            if inlet is not None and not index:
                h = h + inlet.to(h.dtype)
            if features is not None:
                h = h + features[index].to(h.dtype)
            skips.append(h)
        h = run(self.middle, h, embedding, context, source, recompute=self.recompute)
        for block in self.decoder:
            h = torch.cat([h, skips.pop()], dim=1)
            h = run(block, h, embedding, context, source, recompute=self.recompute)
        return self.conv_out(functional.silu(self.norm_out(h)))

    def _check(self, xt: AV, condition: DecoderCondition) -> None:
        size = self.config.image_size
        expected = (self.config.image_channels, size, size)
        # A mel image may have another shape, which its encoder checks.
        if xt.video is not None and tuple(xt.video.shape[2:]) != expected:
            raise SoundreelError(
                f"got latents of channel, height, width {tuple(xt.video.shape[2:])}, expected "
                f"{expected}; encode them with the first stage this decoder was configured for"
            )
        if self.class_embed is not None and condition.label is None:
            raise SoundreelError(
                f"this decoder knows {self.config.num_classes} classes; give one label per clip"
            )


def _stack(features: list[Sequence[Tensor] | None]) -> list[Tensor] | None:
    present = [part for part in features if part is not None]
    if not present:
        return None
    if len(present) < len(features):
        raise SoundreelError(
            "residual features are given for one modality only; give both or neither"
        )
    return [channels_last(torch.cat(parts)) for parts in zip(*present, strict=True)]


class LinearShortcut(nn.Module):
    """Paths of the noisy image and the linear estimate past the network, and of the estimate into
    it.

    At every step the best linear guess of the output is a weighted sum of the two; a network that
    begins as nothing needs thousands of clips to find that out.
    """

    def __init__(self, config: SignalDecoderConfig) -> None:
        super().__init__()
        self.into = nn.Conv2d(config.image_channels, config.width, 1)
        self.weights = nn.Linear(4 * config.width, 2 * config.image_channels)
        zero_parameters(self.weights)

    def forward(
        self,
        x: Float[Tensor, "row channel height width"],
        estimate: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"],
    ) -> Float[Tensor, "row channel height width"]:
        """Return what is added to the output."""
        weights = self.weights(functional.silu(embedding)).to(x.dtype)[:, :, None, None]
        of_image, of_estimate = weights.chunk(2, dim=1)
        return of_image * x + of_estimate * estimate


class UNetBlock(nn.Module):
    """One numbered block of the U-Net: a convolution, or a residual block and what follows it."""

    def __init__(
        self,
        *,
        conv: nn.Module | None = None,
        residual: ResidualBlock | None = None,
        transformer: SpatialTransformer | None = None,
        upsample: Upsample | None = None,
    ) -> None:
        super().__init__()
        self.conv = conv
        self.residual = residual
        self.transformer = transformer
        self.upsample = upsample

    def forward(
        self,
        x: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"],
        context: Float[Tensor, "source token context_dim"],
        source: Int[Tensor, " row"],
    ) -> Tensor:
        if self.conv is not None:
            return self.conv(x)
        assert self.residual is not None
        x = self.residual(x, embedding)
        if self.transformer is not None:
            x = self.transformer(x, context, source)
        return x if self.upsample is None else self.upsample(x)


class MiddleBlock(nn.Module):
    def __init__(self, config: SignalDecoderConfig, channels: int) -> None:
        super().__init__()
        embedding = 4 * config.width
        self.residual1 = ResidualBlock(channels, channels, embedding_dim=embedding)
        self.transformer = _transformer(config, channels)
        self.residual2 = ResidualBlock(channels, channels, embedding_dim=embedding)

    def forward(
        self,
        x: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"],
        context: Float[Tensor, "source token context_dim"],
        source: Int[Tensor, " row"],
    ) -> Tensor:
        h = self.transformer(self.residual1(x, embedding), context, source)
        return self.residual2(h, embedding)


def _transformer(config: SignalDecoderConfig, channels: int) -> SpatialTransformer:
    return SpatialTransformer(
        channels, config.num_heads, config.context_dim, config.transformer_depth
    )


def _downsampling_half(config: SignalDecoderConfig) -> nn.ModuleList:
    first = nn.Conv2d(config.image_channels, config.width, 3, padding=1)
    blocks = nn.ModuleList([UNetBlock(conv=first)])
    channels = config.width
    for level, mult in enumerate(config.channel_mult):
        if level:
            blocks.append(UNetBlock(conv=Downsample(channels)))
        for _ in range(config.num_res_blocks):
            width = config.width * mult
            residual = ResidualBlock(channels, width, embedding_dim=4 * config.width)
            attends = 2**level in config.attention_factors
            transformer = _transformer(config, width) if attends else None
            blocks.append(UNetBlock(residual=residual, transformer=transformer))
            channels = width
    return blocks


def _upsampling_half(config: SignalDecoderConfig) -> nn.ModuleList:
    skips = [channels for channels, _ in config.feature_blocks]
    blocks = nn.ModuleList()
    channels = config.width * config.channel_mult[-1]
    for level in reversed(range(len(config.channel_mult))):
        width = config.width * config.channel_mult[level]
        for index in range(config.num_res_blocks + 1):
            residual = ResidualBlock(channels + skips.pop(), width, embedding_dim=4 * config.width)
            is_last = index == config.num_res_blocks
            attends = 2**level in config.attention_factors
            blocks.append(
                UNetBlock(
                    residual=residual,
                    transformer=_transformer(config, width) if attends else None,
                    upsample=Upsample(width) if level and is_last else None,
                )
            )
            channels = width
    return blocks
