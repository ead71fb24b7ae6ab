"""Joint transformer: attention over the tokens of pictures and sound together, on one clock.

Projections, feed-forward layers and norms are each modality's own; positions are in seconds for
both. A group's modulation sees the noise levels of both modalities there, so that any part of a
clip may be given and the rest sampled.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.attention import dot_product_attention
from soundreel.nn.embeddings import TwoLayerMLP, zero_parameters
from soundreel.nn.linear import Linear
from soundreel.types import AV

MODALITIES = ("video", "audio")
LEVEL_DIM = 64
"""Numbers that embed one noise level."""


class Prior(NamedTuple):
    """Mean and deviation of the latents of each clip's class, `batch 1 token dim` each."""

    mean: AV
    deviation: AV


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerSizes:
    """Sizes of the joint transformer that do not follow from the latents.

    Attributes:
        width: channels of a token inside; a multiple of `num_heads`.
        depth: blocks.
        hidden: channels inside a feed-forward layer.
        num_heads: the first half attends freely, the others near in time.
        slopes: penalties a second of the heads that attend near in time, repeated as needed.
    """

    width: int = 256
    depth: int = 6
    hidden: int = 480
    num_heads: int = 8
    slopes: tuple[float, ...] = (16.0, 8.0, 4.0, 2.0)

    def __post_init__(self) -> None:
        if self.width % self.num_heads or (self.width // self.num_heads) % 4:
            raise SoundreelError(
                f"width {self.width} must divide into num_heads {self.num_heads} of a multiple of 4"
            )
        if self.num_heads % 2 or not self.slopes:
            raise SoundreelError("num_heads must be even, and slopes not empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class JointTransformerConfig:
    """Sizes of the joint transformer.

    Attributes:
        video_tokens, audio_tokens: tokens of a group; the last video token is the layout.
        video_dim, audio_dim: numbers of a token.
        group_s: seconds from one group to the next.
        num_classes: classes besides "any".
    """

    video_tokens: int = 17
    audio_tokens: int = 4
    video_dim: int = 192
    audio_dim: int = 48
    group_s: float = 0.25
    num_classes: int = 0
    sizes: TransformerSizes = field(default_factory=TransformerSizes)


class JointTransformer(nn.Module):
    """Estimate the velocity's remainder (see `diffusion.flow`); zero before training.

    What is measured on the latents lives here as buffers: `audio_mean` and `audio_std` scale the
    audio latents; `*_class_mean` and `*_class_deviation` are those of every number of the scaled
    latents, by class, the last row for any; `*_correlation` is a number's correlation from one
    group to the next.
    """

    def __init__(self, config: JointTransformerConfig) -> None:
        super().__init__()
        self.config = config
        width, depth = config.sizes.width, config.sizes.depth
        self.layout_in = Linear(config.video_dim, width, bias=False)
        self.layout_out = GatedOutput(width, config.video_dim)
        self.tokens_in = _each(lambda m: Linear(_dims(config)[m], width, bias=False))
        self.tokens_out = _each(lambda m: GatedOutput(width, _dims(config)[m]))
        self.places = nn.ParameterDict(
            {
                m: nn.Parameter(torch.empty(n, width).normal_(std=0.02))
                for m, n in _tokens(config).items()
            }
        )
        self.level_in = _each(lambda m: TwoLayerMLP(2 * LEVEL_DIM, width, width))
        self.classes = nn.Embedding(config.num_classes + 1, width)
        self.modulation = _each(lambda m: zero_parameters(Linear(width, 6 * width)))
        offsets = torch.zeros(depth, 6, width)
        offsets[:, [2, 5]] = 1.0  # the gates are open; what they let through starts at zero
        self.offsets = nn.ParameterDict({m: nn.Parameter(offsets.clone()) for m in MODALITIES})
        self.blocks = nn.ModuleList([JointBlock(config.sizes) for _ in range(depth)])
        self.register_buffer("audio_mean", torch.zeros(config.audio_dim))
        self.register_buffer("audio_std", torch.ones(config.audio_dim))
        for modality, count in _tokens(config).items():
            shape = (count, _dims(config)[modality])
            rows = (config.num_classes + 1, *shape)
            self.register_buffer(f"{modality}_class_mean", torch.zeros(rows))
            self.register_buffer(f"{modality}_class_deviation", torch.ones(rows))
            self.register_buffer(f"{modality}_correlation", torch.zeros(shape))

    @property
    def deviation(self) -> AV:
        """Return standard deviation of the latents of any class, `token dim` each."""
        return AV(*(self.get_buffer(f"{m}_class_deviation")[-1] for m in MODALITIES))

    @property
    def correlation(self) -> AV:
        """Return correlation of latents from one group to the next, `token dim` each."""
        return AV(*(self.get_buffer(f"{m}_correlation") for m in MODALITIES))

    def prior(self, label: Int[Tensor, " batch"]) -> Prior:
        """Return mean and deviation of the scaled latents of these classes."""

        def rows(name: str) -> AV:
            return AV(*(self.get_buffer(f"{m}_class_{name}")[label][:, None] for m in MODALITIES))

        return Prior(rows("mean"), rows("deviation"))

    def scaled(self, latents: AV) -> AV:
        """Return the codecs' latents as the network works on them; either may be absent."""
        if latents.audio is None:
            return latents
        mean, std = self.get_buffer("audio_mean"), self.get_buffer("audio_std")
        return latents.replace("audio", (latents["audio"] - mean) / std)

    def restored(self, latents: AV) -> AV:
        """Return what the codecs decode; the inverse of `scaled`."""
        if latents.audio is None:
            return latents
        mean, std = self.get_buffer("audio_mean"), self.get_buffer("audio_std")
        return latents.replace("audio", latents["audio"] * std + mean)

    def forward(self, xt: AV, level: AV, label: Int[Tensor, " batch"]) -> AV:
        """Return the network's answer to scaled latents.

        Args:
            xt: `batch group token dim` each, without the mean of `prior`, of about unit variance.
            level: noise levels in [0, 1], `batch group` each.
            label: class numbers; `num_classes` stands for any.
        """
        num_groups = level["video"].shape[1]
        tokens = self._tokens_in(xt)
        modulation = self._modulation(level, label)
        clock = self._clock(num_groups, xt["video"])
        for index, block in enumerate(self.blocks):
            shifted = {m: modulation[m] + self.offsets[m][index] for m in MODALITIES}
            tokens = block(tokens, shifted, clock)
        hidden = {m: rms_norm(tokens[m]) for m in MODALITIES}
        video = torch.cat(
            [
                self.tokens_out["video"](hidden["video"][:, :, :-1], xt["video"][:, :, :-1]),
                self.layout_out(hidden["video"][:, :, -1:], xt["video"][:, :, -1:]),
            ],
            dim=2,
        )
        return AV(video, self.tokens_out["audio"](hidden["audio"], xt["audio"]))

    def _tokens_in(self, xt: AV) -> dict[str, Tensor]:
        detail = self.tokens_in["video"](xt["video"][:, :, :-1])
        video = torch.cat([detail, self.layout_in(xt["video"][:, :, -1:])], dim=2)
        audio = self.tokens_in["audio"](xt["audio"])
        return {"video": video + self.places["video"], "audio": audio + self.places["audio"]}

    def _modulation(self, level: AV, label: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """Return shift, scale and gate of attention and feed-forward, `b g 1 six d` each."""
        embedded = {m: level_embedding(level[m]) for m in MODALITIES}
        wish = self.classes(label)[:, None]
        modulation = {}
        for own, other in (MODALITIES, MODALITIES[::-1]):
            both = torch.cat([embedded[own], embedded[other]], dim=-1)
            hidden = functional.silu(self.level_in[own](both) + wish)
            six = self.modulation[own](hidden).unflatten(-1, (6, -1))
            modulation[own] = six[:, :, None]
        return modulation

    def _clock(self, num_groups: int, like: Tensor) -> "Clock":
        """Return rotations and penalties of all tokens, video first, from their times alone."""
        config = self.config
        group = torch.arange(num_groups, device=like.device, dtype=torch.float32)
        audio = torch.arange(config.audio_tokens, device=like.device, dtype=torch.float32)
        within = (audio + 0.5) / config.audio_tokens - 0.5
        time = torch.cat(
            [
                group.repeat_interleave(config.video_tokens),
                (group[:, None] + within).flatten(),
            ]
        )
        return clock_of(time * config.group_s, config.sizes, like)


class Clock(NamedTuple):
    """Rotations and biases that tell attention of time.

    Attributes:
        cosine, sine: of the rotation of each token.
        bias: added to the scores of each head; zero for those that attend freely.
    """

    cosine: Float[Tensor, "token frequency"]
    sine: Float[Tensor, "token frequency"]
    bias: Float[Tensor, "1 head token token"]


def clock_of(time_s: Float[Tensor, " token"], sizes: TransformerSizes, like: Tensor) -> Clock:
    """Return the clock of tokens at these times.

    Source:
        Su et al. 2021 (rotations), here of seconds; Press et al. 2022 (linear penalties).
    """
    count = sizes.width // sizes.num_heads // 4
    frequency = torch.logspace(math.log10(0.15), math.log10(4.0), count, device=like.device)
    angle = 2 * math.pi * time_s[:, None] * frequency
    half = sizes.num_heads // 2
    slopes = [sizes.slopes[i % len(sizes.slopes)] for i in range(half)]
    slope = torch.tensor([0.0] * half + slopes, device=like.device)
    apart = (time_s[:, None] - time_s[None]).abs()
    bias = -slope[:, None, None] * apart
    # Four axes: the fused kernel on the CPU takes no bias of three.
    return Clock(angle.cos().to(like), angle.sin().to(like), bias[None].to(like))


class JointBlock(nn.Module):
    """Attention of all tokens to all, then a feed-forward layer; both modulated and gated."""

    def __init__(self, sizes: TransformerSizes) -> None:
        super().__init__()
        self.num_heads = sizes.num_heads
        width, head = sizes.width, sizes.width // sizes.num_heads
        self.qkv = _each(lambda m: Linear(width, 3 * width, bias=False))
        self.out = _each(lambda m: zero_parameters(Linear(width, width, bias=False)))
        self.widen = _each(lambda m: Linear(width, 2 * sizes.hidden, bias=False))
        self.narrow = _each(lambda m: zero_parameters(Linear(sizes.hidden, width, bias=False)))
        self.query_norm = _each(lambda m: HeadNorm(head))
        self.key_norm = _each(lambda m: HeadNorm(head))

    def forward(
        self, tokens: dict[str, Tensor], modulation: dict[str, Tensor], clock: Clock
    ) -> dict[str, Tensor]:
        mixed = self._attention(tokens, modulation, clock)
        result = {}
        for modality, x in tokens.items():
            six = modulation[modality].unbind(dim=-2)
            x = x + six[2] * self.out[modality](mixed[modality])
            gate, value = self.widen[modality](modulated(x, six[3], six[4])).chunk(2, dim=-1)
            result[modality] = x + six[5] * self.narrow[modality](functional.silu(gate) * value)
        return result

    def _attention(
        self, tokens: dict[str, Tensor], modulation: dict[str, Tensor], clock: Clock
    ) -> dict[str, Tensor]:
        parts = []
        for modality, x in tokens.items():
            six = modulation[modality].unbind(dim=-2)
            query, key, value = rearrange(
                self.qkv[modality](modulated(x, six[0], six[1])),
                "b g n (three head d) -> three b head (g n) d",
                three=3,
                head=self.num_heads,
            )
            parts.append((self.query_norm[modality](query), self.key_norm[modality](key), value))
        query, key, value = (torch.cat(kind, dim=2) for kind in zip(*parts, strict=True))
        mixed = dot_product_attention(rotated(query, clock), rotated(key, clock), value, clock.bias)
        mixed = rearrange(mixed, "b head n d -> b n (head d)")
        counts = [x.shape[1] * x.shape[2] for x in tokens.values()]
        rows = mixed.split(counts, dim=1)
        return {
            modality: row.unflatten(1, x.shape[1:3])
            for (modality, x), row in zip(tokens.items(), rows, strict=True)
        }


class HeadNorm(nn.Module):
    """Divide by the root mean square and scale, in the precision of what comes in.

    `nn.RMSNorm` warns in mixed precision, where its weight stays in float32.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x) * self.weight.to(x)


class GatedOutput(nn.Module):
    """Project a token, and add its noisy numbers, each times a gate that the token sets.

    A token has more numbers than channels: noise in all of them can be taken away through the
    gates, while the projection says what is there. Zero before training.
    """

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.project = zero_parameters(Linear(width, dim, bias=False))
        self.gate = zero_parameters(Linear(width, dim, bias=False))

    def forward(self, hidden: Tensor, noisy: Tensor) -> Tensor:
        return self.project(hidden) + self.gate(hidden) * noisy


def rms_norm(x: Float[Tensor, "*axes dim"]) -> Float[Tensor, "*axes dim"]:
    """Divide by the root mean square; nothing is learned."""
    return functional.rms_norm(x, (x.shape[-1],), eps=1e-6)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return the normed `x`, scaled and shifted."""
    return rms_norm(x) * (1 + scale) + shift


def rotated(
    x: Float[Tensor, "batch head token dim"], clock: Clock
) -> Float[Tensor, "batch head token dim"]:
    """Turn pairs of the first half of the numbers by the token's angles; leave the rest."""
    count = clock.cosine.shape[-1]
    first, second = x[..., : 2 * count].to(clock.cosine).chunk(2, dim=-1)  # converted once
    cosine, sine = clock.cosine, clock.sine
    turned = [first * cosine - second * sine, first * sine + second * cosine]
    return torch.cat([*(part.to(x) for part in turned), x[..., 2 * count :]], -1)


def level_embedding(level: Float[Tensor, "batch group"]) -> Float[Tensor, "batch group dim"]:
    """Return sines and cosines of the logarithm of noise to signal."""
    ratio = ((level + 1e-3) / (1 - level + 1e-3)).log()[..., None]
    frequency = torch.logspace(-1, math.log10(8.0), LEVEL_DIM // 2, device=level.device)
    angle = ratio * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _tokens(config: JointTransformerConfig) -> dict[str, int]:
    return {"video": config.video_tokens, "audio": config.audio_tokens}


def _dims(config: JointTransformerConfig) -> dict[str, int]:
    return {"video": config.video_dim, "audio": config.audio_dim}


def _each(build: Callable[[str], nn.Module]) -> nn.ModuleDict:
    """Return a module of each modality."""
    return nn.ModuleDict({modality: build(modality) for modality in MODALITIES})
