"""Stage 2 of MM-LDM, encoding: key-frame and mel-image latents to the perceptual latents z_v, z_a.

Each encoder also turns its latent into residual features, one map for every block of the signal
decoder's downsampling half. Letters: b batch, f frame, c channel, h height, w width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.embeddings import TwoLayerMLP, sinusoidal_embedding, zero_parameters
from soundreel.nn.gaussian import DiagonalGaussian
from soundreel.nn.layout import channels_last, run
from soundreel.nn.norms import group_norm
from soundreel.nn.residual import ResidualBlock
from soundreel.systems.mm_ldm.trunk import ConvBlock, Trunk, TrunkConfig

MOVEMENT_GAIN = 3.0  # brings a clip's changes over time to about the size of its mean
START_LOGVAR = -3.0  # of coefficients that are worth reading from the first step on


@dataclass(frozen=True, kw_only=True)
class PerceptualEncoderConfig:
    """Sizes that the encoders of both modalities have; see `VideoEncoderConfig`.

    Args:
        image_channels, image_size: of the first-stage latent image that is encoded.
        attention_factors: down-factors of the levels with attention (1 = full size).
        feature_channels, feature_factors: channels and down-factor, relative to the first-stage
            latent, of each block of the signal decoder that receives a residual feature.
        linear_shortcut: False as published: the decoder meets a latent through deep features that
            begin as nothing. True also gives it a linear estimate of the image, which begins as the
            inverse of how z_v is stacked; and z_a starts as its image.
    """

    image_channels: int = 4
    image_size: int = 32
    latent_channels: int = 16
    width: int = 320
    channel_mult: tuple[int, ...] = (1, 2)
    num_res_blocks: int = 2
    head_width: int = 64
    attention_factors: tuple[int, ...] = (1, 2)
    feature_channels: tuple[int, ...] = (*4 * (320,), *3 * (640,), *5 * (1280,))
    feature_factors: tuple[int, ...] = (1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8)
    linear_shortcut: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if len(self.feature_channels) != len(self.feature_factors):
            raise SoundreelError(
                f"{len(self.feature_channels)} feature_channels but {len(self.feature_factors)} "
                "feature_factors; give one of each per decoder block"
            )
        if any(side % self.factor for side in self.image_shape):
            raise SoundreelError(
                f"image_size {self.image_size} is not a multiple of the encoder's factor "
                f"{self.factor}, or its width is not; use fewer levels or another size"
            )

    @property
    def factor(self) -> int:
        """Return positions of the first-stage latent per position of the perceptual latent."""
        return 2 ** (len(self.channel_mult) - 1)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Return height and width of the first-stage latent image."""
        return self.image_size, self.image_size

    @property
    def latent_size(self) -> int:
        return self.image_size // self.factor

    def trunk(self, *, in_channels: int, temporal: bool) -> TrunkConfig:
        return TrunkConfig(
            in_channels=in_channels,
            width=self.width,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            head_width=self.head_width,
            spatial_attention=self.attention_factors,
            temporal_attention=self.attention_factors if temporal else (),
            gradient_checkpointing=self.gradient_checkpointing,
        )


@dataclass(frozen=True, kw_only=True)
class VideoEncoderConfig(PerceptualEncoderConfig):
    """Sizes of the video encoder; the defaults are those of MM-LDM's Table 1.

    Args:
        index_scale: the frame index in [0, 1) is multiplied by this before its sinusoids. The
            published models use 1, which leaves the embedding almost constant; 1000 is better.
        index_gate_channels: 0 as published: the index is only added to the features' channels.
            Otherwise the latent is first widened to so many channels and the index weights them,
            so that one latent can hold every frame in channels of its own.
        stacked_frames: 0 as published: z_v is read off the learned frame, which meets the key
            frames through attention only. That cannot tell frames apart that have no border beside
            them, and what moves is a hundredth of the variance: of sixteen key frames the latent
            then holds the mean and no more. Otherwise the number of key frames: z_v starts as
            their first cosine coefficients over time, and what is read is added.
    """

    index_scale: float = 1.0
    index_gate_channels: int = 0
    stacked_frames: int = 0


@dataclass(frozen=True, kw_only=True)
class AudioEncoderConfig(PerceptualEncoderConfig):
    """Sizes of the audio encoder; the defaults are those of MM-LDM's Table 1.

    Args:
        image_width: of a mel image that keeps its aspect, where `image_size` is its height; 0 is a
            square.
    """

    # Earlier files say these of the audio encoder too, which never had a use for them.
    old_keys: ClassVar[Mapping[str, str | None]] = dict.fromkeys(
        ("index_scale", "index_gate_channels", "stacked_frames")
    )

    image_width: int = 0
    channel_mult: tuple[int, ...] = (1, 2, 4)
    attention_factors: tuple[int, ...] = (1, 2, 4)

    @property
    def image_shape(self) -> tuple[int, int]:
        """Return height and width of the first-stage latent image."""
        return self.image_size, self.image_width or self.image_size

    @property
    def latent_width(self) -> int:
        """Return columns of z_a; 0 where they are as many as its rows."""
        return self.image_width // self.factor

    @classmethod
    def like(cls, other: PerceptualEncoderConfig, **changes: Any) -> "AudioEncoderConfig":
        """Return the sizes of another encoder, with some exchanged."""
        names = [field.name for field in fields(PerceptualEncoderConfig)]
        return cls(**{name: getattr(other, name) for name in names} | changes)


class VideoEncoder(nn.Module):
    """Key frames to z_v: a learned frame is put before them, and only its place is read.

    Source:
        MM-LDM, section 3 and Table 1 (142,624,000 parameters at full size).
    """

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        self.config = config
        trunk = config.trunk(in_channels=config.image_channels, temporal=True)
        size = config.image_size
        self.content = nn.Parameter(torch.empty(config.image_channels, size, size).normal_())
        self.trunk = Trunk(trunk)
        self.mean_head = MomentHead(trunk.out_channels, config.latent_channels)
        self.logvar_head = MomentHead(trunk.out_channels, config.latent_channels)
        zero_parameters(self.logvar_head.out)
        self.stack = None
        if config.stacked_frames:
            self.stack = TemporalStack(config, config.stacked_frames)
            start_at_stack(self.mean_head, self.logvar_head)
        self.index_embed = TwoLayerMLP(config.width, 4 * config.width, 4 * config.width)
        if config.index_gate_channels:
            for layer in (self.index_embed.first, self.index_embed.last):
                nn.init.kaiming_normal_(layer.weight)  # or all indices start nearly alike
        self.pyramid = FeaturePyramid(
            config, embedding_dim=4 * config.width, gate_channels=config.index_gate_channels
        )
        self.readout = None
        if config.linear_shortcut:
            self.readout = LinearReadout(config, max(1, config.stacked_frames))

    def forward(
        self, key_frames: Float[Tensor, "batch frame channel height width"]
    ) -> DiagonalGaussian:
        """Return posterior of z_v given the first-stage latents of the key frames.

        Raises:
            SoundreelError: latents of another size, or not as many frames as `stacked_frames`.
        """
        check_image(key_frames, self.config, "key_frames")
        content = repeat(self.content, "c h w -> b 1 c h w", b=key_frames.shape[0])
        frames = torch.cat([content.to(key_frames.dtype), key_frames], dim=1)
        num_frames = frames.shape[1]
        h = self.trunk(rearrange(frames, "b f c h w -> (b f) c h w"), num_frames)
        mean, logvar = self.mean_head(h, num_frames), self.logvar_head(h, num_frames)
        if self.stack is not None:
            mean = mean + self.stack(key_frames).to(mean.dtype)
        return DiagonalGaussian.from_parameters(mean, logvar)

    def features(
        self,
        latent: Float[Tensor, "batch channel height width"],
        frame_index: Float[Tensor, "batch frame"],
    ) -> list[Tensor]:
        """Return residual features of the frames at the given indices in [0, 1).

        Returns:
            One map per decoder block, `(batch frame) channel height width`.
        """
        position = rearrange(frame_index, "b f -> (b f)") * self.config.index_scale
        embedding = self.index_embed(sinusoidal_embedding(position, self.config.width))
        rows = repeat(latent, "b c h w -> (b f) c h w", f=frame_index.shape[1])
        return self.pyramid(rows, embedding)

    def estimate(
        self,
        latent: Float[Tensor, "batch channel height width"],
        frame_index: Float[Tensor, "batch frame"],
    ) -> Float[Tensor, "row image_channel image_height image_width"] | None:
        """Return the linear map's first-stage latents of those frames, if there is one."""
        if self.readout is None:
            return None
        rows = repeat(latent, "b c h w -> (b f) c h w", f=frame_index.shape[1])
        return self.readout(rows, rearrange(frame_index, "b f -> (b f)"))


class AudioEncoder(nn.Module):
    """Mel image to z_a: a learned map is put before its channels.

    Source:
        MM-LDM, section 3 (201,382,400 parameters at full size, levels 1-2-4).
    """

    def __init__(self, config: AudioEncoderConfig) -> None:
        super().__init__()
        self.config = config
        trunk = config.trunk(in_channels=2 * config.image_channels, temporal=False)
        self.content = nn.Parameter(
            torch.empty(config.image_channels, *config.image_shape).normal_()
        )
        self.trunk = Trunk(trunk)
        self.mean_head = MomentHead(trunk.out_channels, config.latent_channels)
        self.logvar_head = MomentHead(trunk.out_channels, config.latent_channels)
        zero_parameters(self.logvar_head.out)
        self.pyramid = FeaturePyramid(config)
        self.stack = self.readout = None
        if config.linear_shortcut:
            self.stack = TemporalStack(config, 1)
            self.readout = LinearReadout(config, 1)
            start_at_stack(self.mean_head, self.logvar_head)

    def forward(self, image: Float[Tensor, "batch channel height width"]) -> DiagonalGaussian:
        """Return posterior of z_a given the first-stage latent of the mel image."""
        check_image(image, self.config, "audio image")
        content = repeat(self.content, "c h w -> b c h w", b=image.shape[0])
        h = self.trunk(torch.cat([content.to(image.dtype), image], dim=1))
        mean, logvar = self.mean_head(h, 1), self.logvar_head(h, 1)
        if self.stack is not None:
            mean = mean + self.stack(image[:, None]).to(mean.dtype)
        return DiagonalGaussian.from_parameters(mean, logvar)

    def features(self, latent: Float[Tensor, "batch channel height width"]) -> list[Tensor]:
        """Return one residual feature per decoder block, `batch channel height width`."""
        return self.pyramid(latent, None)

    def estimate(
        self, latent: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch image_channel image_height image_width"] | None:
        """Return the linear map's first-stage latent of the mel image, if there is one."""
        return None if self.readout is None else self.readout(latent, latent.new_zeros(len(latent)))


class MomentHead(nn.Module):
    """3x3x3 convolution, norm over all frames, SiLU, 1x1 convolution of the first frame."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = ConvBlock(in_channels, out_channels, 1, mix_frames=True)
        self.norm = group_norm(out_channels)
        self.out = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "row channel height width"], num_frames: int) -> Tensor:
        h = rearrange(self.block(x, num_frames), "(b f) c h w -> b c f h w", f=num_frames)
        return self.out(functional.silu(self.norm(h)[:, :, 0]))


def start_at_stack(mean_head: MomentHead, logvar_head: MomentHead) -> None:
    """Let a stack alone be the mean at first, with little noise on it."""
    zero_parameters(mean_head.out)
    assert logvar_head.out.bias is not None
    nn.init.constant_(logvar_head.out.bias, START_LOGVAR)


class FeaturePyramid(nn.Module):
    """Perceptual latent to one residual feature per decoder block, silent at initialisation.

    Args:
        embedding_dim: width of the frame index's embedding; 0 for none.
        gate_channels: see `VideoEncoderConfig.index_gate_channels`.
    """

    def __init__(
        self, config: PerceptualEncoderConfig, *, embedding_dim: int = 0, gate_channels: int = 0
    ) -> None:
        super().__init__()
        self.recompute = config.gradient_checkpointing
        self.gate = None
        channels_in = config.latent_channels
        if gate_channels:
            channels_in = gate_channels
            self.gate = IndexGate(config.latent_channels, channels_in, embedding_dim)
        targets = zip(config.feature_channels, config.feature_factors, strict=True)
        self.blocks = nn.ModuleList(
            PyramidBlock(
                channels_in,
                channels,
                resample=config.factor.bit_length() - factor.bit_length(),
                embedding_dim=embedding_dim,
            )
            for channels, factor in targets
        )

    def forward(
        self,
        latent: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"] | None,
    ) -> list[Tensor]:
        latent = channels_last(latent)
        if self.gate is not None and embedding is not None:
            latent = self.gate(latent, embedding)
        return [run(block, latent, embedding, recompute=self.recompute) for block in self.blocks]


class TemporalStack(nn.Module):
    """All key frames to z_v through one convolution, at first a cosine transform over time.

    Latent channel `k * image_channels + c` starts as coefficient k of image channel c: k = 0 is the
    mean over the frames, the others are weighted to be of its size. Channels beyond as many
    coefficients as there are frames start as zero.
    """

    def __init__(self, config: PerceptualEncoderConfig, count: int) -> None:
        super().__init__()
        self.factor, self.num_frames = config.factor, count
        channels = config.image_channels
        conv = nn.Conv2d(count * channels, config.latent_channels, 3, padding=1)
        self.conv = zero_parameters(conv)
        place = (torch.arange(count) + 0.5) / count
        with torch.no_grad():
            for row in range(min(config.latent_channels, count * channels)):
                k, channel = divmod(row, channels)
                wave = torch.cos(torch.pi * k * place)
                scale = MOVEMENT_GAIN * (2 / count) ** 0.5 if k else 1 / count
                self.conv.weight[row, channel::channels, 1, 1] = scale * wave

    def forward(
        self, key_frames: Float[Tensor, "batch frame channel height width"]
    ) -> Float[Tensor, "batch latent_channel latent_height latent_width"]:
        """Raise `SoundreelError` for another number of frames."""
        if key_frames.shape[1] != self.num_frames:
            raise SoundreelError(
                f"got {key_frames.shape[1]} key frames, but this encoder has weights for "
                f"{self.num_frames} (stacked_frames)"
            )
        h = self.conv(channels_last(rearrange(key_frames, "b f c h w -> b (f c) h w")))
        return functional.avg_pool2d(h, self.factor)


class LinearReadout(nn.Module):
    """A frame's first-stage latent as a linear map of z: its cosine coefficients, put together.

    Args:
        count: frames that `TemporalStack` has made the latent from.
    """

    def __init__(self, config: PerceptualEncoderConfig, count: int) -> None:
        super().__init__()
        self.factor, self.count = config.factor, count
        conv = nn.Conv2d(config.latent_channels, config.image_channels, 3, padding=1)
        self.conv = zero_parameters(conv)
        rows = torch.arange(config.latent_channels)
        with torch.no_grad():
            self.conv.weight[rows % config.image_channels, rows, 1, 1] = 1.0

    def forward(
        self,
        latent: Float[Tensor, "row channel height width"],
        frame_index: Float[Tensor, " row"],
    ) -> Float[Tensor, "row image_channel image_height image_width"]:
        """Embed one frame a row, at its place in the clip, in [0, 1)."""
        images, rows = self.conv.weight.shape[:2]
        frequency = torch.arange(rows, device=latent.device) // images
        size = torch.where(frequency > 0, (2 / self.count) ** 0.5 / MOVEMENT_GAIN, 1.0)
        size = size * (frequency < self.count)  # the rest are no coefficients: for deep features
        weights = size * torch.cos(torch.pi * frequency * (frame_index[:, None] + 0.5 / self.count))
        weighted = channels_last(latent) * weights[:, :, None, None].to(latent.dtype)
        return functional.interpolate(self.conv(weighted), scale_factor=self.factor)


class IndexGate(nn.Module):
    """Widens a latent, and lets every frame index turn channels of it up, down or round.

    Different frames meet differently weighted channels from the first step on: beside an embedding
    that is only added, what tells frames apart would have to grow from nothing in the encoder and
    in the decoder at once.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(in_channels, out_channels, 1)
        self.gates = nn.Linear(embedding_dim, out_channels)
        nn.init.normal_(self.gates.weight, std=(2 / embedding_dim) ** 0.5)

    def forward(
        self,
        latent: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"],
    ) -> Float[Tensor, "row out_channel height width"]:
        gates = self.gates(functional.silu(embedding))
        return self.widen(latent) * gates[:, :, None, None].to(latent.dtype)


class PyramidBlock(nn.Module):
    def __init__(
        self, in_channels: int, out_channels: int, *, resample: int, embedding_dim: int
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(
            in_channels, out_channels, resample=resample, embedding_dim=embedding_dim
        )
        self.out = zero_parameters(nn.Conv2d(out_channels, out_channels, 1))

    def forward(
        self,
        latent: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"] | None,
    ) -> Tensor:
        return self.out(self.residual(latent, embedding))


def check_image(x: Tensor, config: PerceptualEncoderConfig, name: str) -> None:
    """Raise `SoundreelError` unless the last three axes are the latent image expected."""
    expected = (config.image_channels, *config.image_shape)
    if tuple(x.shape[-3:]) != expected:
        raise SoundreelError(
            f"{name}: got latents of channel, height, width {tuple(x.shape[-3:])}, expected "
            f"{expected}; encode them with the first stage this encoder was configured for"
        )
