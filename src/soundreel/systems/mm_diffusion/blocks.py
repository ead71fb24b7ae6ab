"""Building blocks of MM-Diffusion's Coupled U-Net (Ruan et al., CVPR 2023, 3.2 and supplement).

Inside the network everything is channels last, because convolution and matrix libraries are fastest
there and no layer then needs a copy: video is `b f h w c`, audio is `b s c`.

Letters: b batch, f frame, h height, w width, n = h * w positions of a frame, s sample, c channel,
k key of an attention window.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from soundreel.errors import SoundreelError
from soundreel.nn.attention import dot_product_attention
from soundreel.nn.linear import Linear, linear
from soundreel.nn.norms import token_group_norm
from soundreel.types import AV


def sinusoidal_embedding(
    timestep: Tensor, dim: int, max_period: float = 10_000.0
) -> Float[Tensor, "batch dim"]:
    """Return sinusoids of the step, cosines first; an odd `dim` ends in one zero. Always
    float32."""
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angle = timestep.float()[:, None] * torch.exp(-torch.log(torch.tensor(max_period)) * exponent)
    return F.pad(torch.cat([angle.cos(), angle.sin()], dim=-1), (0, dim % 2))


class TokenGroupNorm(nn.Module):
    """Group normalisation of `b ... c`: statistics over all positions of a row and c / groups."""

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        if channels % num_groups:
            raise SoundreelError(f"{channels} channels do not divide into {num_groups} norm groups")
        self.num_groups = num_groups
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        x: Float[Tensor, "batch *token channel"],
        change: Float[Tensor, "batch twice_channel"] | None = None,
        *,
        is_activated: bool = False,
    ) -> Float[Tensor, "batch *token channel"]:
        """Return the normalised tokens, and SiLU of them with `is_activated`.

        Args:
            change: a row's scale, less 1, and shift of the normalised channels, one after the
                other.
        """
        weight, bias = self.weight[None], self.bias[None]
        if change is not None:
            scale, shift = change.chunk(2, dim=-1)
            weight, bias = weight * (1 + scale), torch.addcmul(shift, bias, 1 + scale)
        rows = x.reshape(x.shape[0], -1, x.shape[-1])
        rows = token_group_norm(rows, self.num_groups, weight, bias, is_activated=is_activated)
        return rows.reshape(x.shape)

    def along(self, x: Float[Tensor, "batch token place channel"]) -> Tensor:
        """Return the tokens of each place normalised by themselves."""
        places = x.shape[2]
        weight, bias = (each.repeat(places)[None] for each in (self.weight, self.bias))
        rows = token_group_norm(x.flatten(2), places * self.num_groups, weight, bias)
        return rows.reshape(x.shape)


class VideoConv(nn.Module):
    """3x3 convolution within each frame, then 3 wide over frames ("2d+1d"); or 3x3x3 ("3d")."""

    def __init__(self, in_channels: int, out_channels: int, kind: str = "2d+1d") -> None:
        super().__init__()
        if kind not in ("2d+1d", "3d"):
            raise SoundreelError(f"video convolution is '2d+1d' or '3d', got {kind!r}")
        self.kind = kind
        if kind == "3d":
            self.full = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        else:
            self.spatial = nn.Conv2d(in_channels, out_channels, 3, padding=1)
            self.temporal = nn.Conv1d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch frame height width channel"]) -> Tensor:
        b, f, h, w, c = x.shape
        if self.kind == "3d":
            return self.full(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        y = self.spatial(x.reshape(b * f, h, w, c).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = y.reshape(b, f, h * w, -1).permute(0, 3, 1, 2)  # b c f n, channels last in memory
        weight = self.temporal.weight[..., None]
        y = F.conv2d(y, weight, self.temporal.bias, padding=(1, 0)).permute(0, 2, 3, 1)
        return y.reshape(b, f, h, w, -1)


class AudioConv(nn.Conv1d):
    """Dilated convolution of width 3 over the samples of `b s c`, zero-padded at both ends."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Float[Tensor, "batch sample channel"]) -> Tensor:
        dilation = self.dilation[0]
        if dilation >= x.shape[1]:  # both outer taps would read nothing but padding
            return linear(x, self.weight[..., 1], self.bias)
        y = F.conv2d(
            x[:, None].permute(0, 3, 1, 2),  # b c 1 s
            self.weight[:, :, None],
            self.bias,
            padding=(0, dilation),
            dilation=(1, dilation),
        )
        return y.permute(0, 2, 3, 1)[:, 0]


def resample_video(x: Float[Tensor, "b f h w c"], direction: str | None) -> Tensor:
    """Halve (average) or double (nearest) height and width of every frame."""
    if direction is None:
        return x
    frames = rearrange(x, "b f h w c -> (b f) c h w")
    if direction == "down":
        frames = F.avg_pool2d(frames, 2)
    else:
        frames = F.interpolate(frames, scale_factor=2.0, mode="nearest")
    return rearrange(frames, "(b f) c h w -> b f h w c", b=x.shape[0])


def resample_audio(x: Float[Tensor, "b s c"], direction: str | None) -> Tensor:
    """Average every 4 samples into one, or repeat each sample 4 times."""
    if direction is None:
        return x
    if direction == "down":
        whole = x.shape[1] // 4 * 4
        return rearrange(x[:, :whole], "b (s four) c -> b s four c", four=4).mean(2)
    return x.repeat_interleave(4, dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Attend with `b q (head d)` over `b k (head d)`; a head is a range of channels."""
    q, k, v = (rearrange(x, "b t (h d) -> b h t d", h=num_heads) for x in (query, key, value))
    return rearrange(dot_product_attention(q, k, v), "b h t d -> b t (h d)")


def added(h: Tensor, x: Tensor) -> Tensor:
    """Return h + x, in the memory of `h` where its type allows."""
    return h.add_(x) if h.dtype == torch.promote_types(h.dtype, x.dtype) else h + x


class SelfAttention(nn.Module):
    """y = x + proj(attention(qkv(norm(x)))) over each row's tokens; q, k, v split before heads."""

    def __init__(self, channels: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise SoundreelError(f"{channels} channels do not divide into {num_heads} heads")
        self.num_heads = num_heads
        self.norm = TokenGroupNorm(channels, num_groups)
        self.qkv = Linear(channels, 3 * channels)
        self.out = zero_init(Linear(channels, channels))

    def forward(self, x: Float[Tensor, "row token channel"]) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).chunk(3, dim=-1)
        return added(self.out(attend(query, key, value, self.num_heads)), x)

    def along(self, x: Float[Tensor, "row token place channel"]) -> Tensor:
        """Return the same over the tokens of each place, copying none of them.

        Places and heads are one axis of memory where query, key and value lie apart.
        """
        row, token, place, _ = x.shape
        h = self.norm.along(x)
        maps = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        query, key, value = (linear(h, *each).flatten(2) for each in maps)
        mixed = attend(query, key, value, place * self.num_heads)
        return added(self.out(mixed.view(row, token, place, -1)), x)


Layer = TypeVar("Layer", bound=nn.Module)


def zero_init(module: Layer) -> Layer:
    """Start a layer at zero, so that its residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualBlockConfig:
    """One residual block: channel counts, audio dilation, resampling direction and attentions."""

    in_channels: int
    out_channels: int
    embedding_dim: int
    dilation: int
    resample: str | None = None
    scale_shift_norm: bool = True
    dropout: float = 0.0
    video_conv: str = "2d+1d"
    video_attention: bool = False
    audio_attention: bool = False
    num_heads: int = 4
    num_groups: int = 32


class ResidualBlock(nn.Module):
    """Residual block of both branches; one embedding projection serves both (3.2, figure 3)."""

    def __init__(self, config: ResidualBlockConfig) -> None:
        super().__init__()
        c_in, c_out, groups = config.in_channels, config.out_channels, config.num_groups
        self.config = config
        self.video_norm_in = TokenGroupNorm(c_in, groups)
        self.video_conv_in = VideoConv(c_in, c_out, config.video_conv)
        self.audio_norm_in = TokenGroupNorm(c_in, groups)
        self.audio_conv_in = AudioConv(c_in, c_out, config.dilation)
        self.embedding = Linear(config.embedding_dim, c_out * (1 + config.scale_shift_norm))
        self.video_norm_out = TokenGroupNorm(c_out, groups)
        self.video_out = zero_init(Linear(c_out, c_out))
        self.audio_norm_out = TokenGroupNorm(c_out, groups)
        self.audio_out = zero_init(Linear(c_out, c_out))
        changes = c_in != c_out
        self.video_skip = Linear(c_in, c_out) if changes else nn.Identity()
        self.audio_skip = Linear(c_in, c_out) if changes else nn.Identity()
        attention = (c_out, config.num_heads, groups)
        self.spatial_attention = SelfAttention(*attention) if config.video_attention else None
        self.temporal_attention = SelfAttention(*attention) if config.video_attention else None
        self.audio_attention = SelfAttention(*attention) if config.audio_attention else None

    def _modulated(self, h: Tensor, embedding: Tensor, norm: TokenGroupNorm) -> Tensor:
        """Return SiLU of the norm that the step's embedding changes."""
        if self.config.scale_shift_norm:
            return norm(h, embedding, is_activated=True)
        shift = embedding.reshape(h.shape[0], *(1 for _ in h.shape[1:-1]), -1)
        return norm(h + shift.to(h.dtype), is_activated=True)

    def forward(self, x: AV, embedding: Float[Tensor, "batch dim"]) -> AV:
        video, audio = x["video"], x["audio"]
        direction, dropout = self.config.resample, self.config.dropout
        embedding = self.embedding(F.silu(embedding))

        # Unlike guided diffusion, this network resamples after the first convolution.
        h = self.video_conv_in(self.video_norm_in(video, is_activated=True))
        h = self._modulated(resample_video(h, direction), embedding, self.video_norm_out)
        h = self.video_out(F.dropout(h, dropout, self.training))
        video = added(h, self.video_skip(resample_video(video, direction)))

        h = self.audio_conv_in(self.audio_norm_in(audio, is_activated=True))
        h = self._modulated(resample_audio(h, direction), embedding, self.audio_norm_out)
        h = self.audio_out(F.dropout(h, dropout, self.training))
        audio = added(h, self.audio_skip(resample_audio(audio, direction)))

        if self.spatial_attention is not None and self.temporal_attention is not None:
            b, _, height, _, _ = video.shape
            video = self.spatial_attention(rearrange(video, "b f h w c -> (b f) (h w) c"))
            video = self.temporal_attention.along(rearrange(video, "(b f) n c -> b f n c", b=b))
            video = rearrange(video, "b f (h w) c -> b f h w c", h=height)
        if self.audio_attention is not None:
            audio = self.audio_attention(audio)
        return AV(video, audio)


class CrossModalAttention(nn.Module):
    """Windowed cross-modal attention with random shift (section 3.3, "RS-MMA").

    With n positions per frame, a = floor(S / F) samples per frame, window w and shift s: the pixels
    of frame i attend to the samples `(i + s) * a + r mod S` for r < w * a, and the samples of
    segment i attend to the pixels of the frames `i + s, ..., i + s + w - 1 mod F`. The last segment
    takes the samples left over when F does not divide S. Nothing attends within its own modality.
    """

    def __init__(self, channels: int, window: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise SoundreelError(f"{channels} channels do not divide into {num_heads} heads")
        self.window, self.num_heads = window, num_heads
        self.video_norm = TokenGroupNorm(channels, num_groups)
        self.audio_norm = TokenGroupNorm(channels, num_groups)
        self.video_qkv = Linear(channels, 3 * channels)
        self.audio_qkv = Linear(channels, 3 * channels)
        self.video_out = zero_init(Linear(channels, channels))
        self.audio_out = zero_init(Linear(channels, channels))

    def forward(self, x: AV, window_shift: int) -> AV:
        video, audio = x["video"], x["audio"]
        b, f = video.shape[:2]
        s = audio.shape[1]
        a = s // f
        if not 1 <= self.window <= f or a == 0:
            raise ValueError(
                f"window of {self.window} frames does not fit {f} frames with {s} samples"
            )
        v_query, v_key, v_value = self.video_qkv(self.video_norm(video)).flatten(1, 3).chunk(3, -1)
        a_query, a_key, a_value = self.audio_qkv(self.audio_norm(audio)).chunk(3, dim=-1)
        whole = self.window == f and s == f * a  # every token sees all: one window, no copies
        groups = 1 if whole else f

        def windows(tokens: Tensor) -> Tensor:
            if whole:
                return tokens
            return cyclic_windows(tokens, f, self.window, window_shift).flatten(0, 1)  # (b f) k c

        def per_group(tokens: Tensor) -> Tensor:
            return rearrange(tokens, "b (g t) c -> (b g) t c", g=groups)

        query = per_group(v_query)
        seen = attend(query, windows(a_key), windows(a_value), self.num_heads)
        new_video = added(self.video_out(seen.reshape(video.shape)), video)

        key, value = windows(v_key), windows(v_value)
        query = per_group(a_query[:, : f * a])
        heard = attend(query, key, value, self.num_heads)
        heard = rearrange(heard, "(b g) t c -> b (g t) c", b=b)
        if s > f * a:
            last = [rearrange(t, "(b f) k c -> b f k c", b=b)[:, -1] for t in (key, value)]
            rest = attend(a_query[:, f * a :], last[0], last[1], self.num_heads)
            heard = torch.cat([heard, rest], dim=1)
        return AV(new_video, added(self.audio_out(heard), audio))


def cyclic_windows(
    tokens: Float[Tensor, "batch token channel"], num_frames: int, window: int, shift: int
) -> Float[Tensor, "batch frame key channel"]:
    """Return for each frame i the tokens `((i + shift) * a + r) mod T`, r < window * a, a =
    floor(T / F).

    Windows share their memory: the tokens are copied once, from the first window's start on.
    """
    total = tokens.shape[1]
    per_frame = total // num_frames
    start = shift * per_frame % total
    end = start + (num_frames - 1 + window) * per_frame
    pieces = [
        tokens[:, max(start - lap * total, 0) : end - lap * total]
        for lap in range(-(-end // total))
    ]
    line = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
    return line.unfold(1, window * per_frame, per_frame).mT
