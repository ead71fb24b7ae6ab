"""MM-Diffusion's Coupled U-Net: one denoiser for frames and waveform (Ruan et al., CVPR 2023).

Architecture after section 3.2-3.3 and the supplement's Table 1. Where the published code differs
from the text (audio dilations, heads of self-attention) the code's behaviour is kept, because
published weights depend on it; docs/fidelity.md lists every case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from soundreel.errors import SoundreelError
from soundreel.nn.layout import LARGE_BYTES, return_free_memory
from soundreel.systems.mm_diffusion.blocks import (
    AudioConv,
    CrossModalAttention,
    ResidualBlock,
    ResidualBlockConfig,
    TokenGroupNorm,
    VideoConv,
    sinusoidal_embedding,
    zero_init,
)
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True, slots=True)
class CoupledUNetConfig:
    """Sizes of the Coupled U-Net; the defaults are the supplement's Table 1 (Landscape, AIST++).

    Attributes:
        num_frames: frames per clip; the middle block's window spans all of them.
        width: channels at full resolution; `channel_mult` multiplies it level by level.
        num_res_blocks: residual blocks per level, besides the resampling one.
        *_attention_factors: downsampling factors (1, 2, 4, ...) where a block has that attention.
        cross_attention_windows: window in frames for each cross-attention factor.
        shift_windows: draw a window shift for every windowed block (random-shift attention).
        cross_head_width: channels per head in cross-modal attention; 0 uses `num_heads` heads.
        middle_cross_attention: whether the middle has its full-window cross-modal block.
        learned_variance: double the output channels; the second half interpolates the variance.
        video_conv: of the residual blocks, "2d+1d" (space, then frames) or "3d"; the stem is
            "2d+1d" with either, as in the official code.
        num_groups: groups of every group normalisation; divides every channel count.
    """

    num_frames: int = 16
    video_channels: int = 3
    audio_channels: int = 1
    width: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_res_blocks: int = 2
    video_attention_factors: tuple[int, ...] = (2, 4, 8)
    audio_attention_factors: tuple[int, ...] = ()
    cross_attention_factors: tuple[int, ...] = (2, 4, 8)
    cross_attention_windows: tuple[int, ...] = (1, 4, 8)
    shift_windows: bool = True
    middle_cross_attention: bool = True
    num_heads: int = 4
    cross_head_width: int = 64
    scale_shift_norm: bool = True
    learned_variance: bool = False
    dropout: float = 0.1
    video_conv: str = "2d+1d"
    num_groups: int = 32

    def __post_init__(self) -> None:
        factors = {2**level for level in range(len(self.channel_mult))}
        for name in ("video", "audio", "cross"):
            given = getattr(self, f"{name}_attention_factors")
            if not set(given) <= factors:
                raise SoundreelError(
                    f"{name}_attention_factors {given} must be among {sorted(factors)}, the"
                    f" downsampling factors of {len(self.channel_mult)} levels"
                )
        if len(self.cross_attention_windows) != len(self.cross_attention_factors):
            raise SoundreelError(
                f"cross_attention_windows {self.cross_attention_windows} needs one window for each"
                f" of cross_attention_factors {self.cross_attention_factors}"
            )
        for window in self.cross_attention_windows:
            if not 1 <= window <= self.num_frames:
                raise SoundreelError(
                    f"cross_attention_windows: {window} is not within 1..{self.num_frames} frames"
                )
        narrowest = min(
            (self.width * self.channel_mult[factor.bit_length() - 1] for factor in self._crossed),
            default=self.cross_head_width,
        )
        if narrowest < self.cross_head_width:
            raise SoundreelError(
                f"cross_head_width {self.cross_head_width} is more than the {narrowest} channels of"
                " a level with cross-modal attention; lower it, or give 0 to use num_heads"
            )
        if not 0 <= self.dropout < 1:
            raise SoundreelError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def _crossed(self) -> set[int]:
        """Return downsampling factors with cross-modal attention, the middle's included."""
        middle = {2 ** (len(self.channel_mult) - 1)} if self.middle_cross_attention else set()
        return set(self.cross_attention_factors) | middle

    def cross_window(self, factor: int) -> int | None:
        """Window in frames at a downsampling factor; None without cross-modal attention there."""
        windows = zip(self.cross_attention_factors, self.cross_attention_windows, strict=True)
        return dict(windows).get(factor)


class Stem(nn.Module):
    """First convolution of each branch."""

    def __init__(self, config: CoupledUNetConfig) -> None:
        super().__init__()
        self.video = VideoConv(config.video_channels, config.width)
        self.audio = AudioConv(config.audio_channels, config.width)

    def forward(self, x: AV) -> AV:
        return AV(self.video(x["video"]), self.audio(x["audio"]))


class _Dilations:
    """The published rule: a block uses 2^(d mod 10); d counts up along the encoder, then down."""

    def __init__(self) -> None:
        self.count = 1

    def current(self) -> int:
        return 2 ** (self.count % 10)


class CoupledUNet(nn.Module):
    """Predicts the noise of a noisy clip, both modalities together.

    Shapes:
        xt.video: `batch frame channel height width`; height and width divisible by
            2^(levels - 1).
        xt.audio: `batch channel sample`; sample divisible by 4^(levels - 1).

    Source:
        Ruan et al. 2023, section 3.2 (coupled U-Net), 3.3 (random-shift attention);
        supplement, Table 1.
    """

    def __init__(self, config: CoupledUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.time_embed = nn.Sequential(
            nn.Linear(config.width, config.width), nn.SiLU(), nn.Linear(config.width, config.width)
        )
        widths = [config.width * mult for mult in config.channel_mult]
        last = len(widths) - 1
        dilation = _Dilations()

        self.input_blocks = nn.ModuleList([nn.ModuleList([Stem(config)])])
        channels, skips = config.width, [config.width]
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                self.input_blocks.append(self._entry(channels, width, 2**level, dilation.current()))
                dilation.count += 1
                channels = width
                skips.append(channels)
            if level < last:
                down = self._residual(channels, channels, dilation.current(), resample="down")
                self.input_blocks.append(nn.ModuleList([down]))
                dilation.count += 1
                skips.append(channels)

        self.middle_blocks = self._middle(channels, dilation.current())

        dilation.count -= 1
        self.output_blocks = nn.ModuleList()
        for level in range(last, -1, -1):
            for repeat in range(config.num_res_blocks + 1):
                width = widths[level]
                entry = self._entry(channels + skips.pop(), width, 2**level, dilation.current())
                dilation.count -= 1
                channels = width
                if level and repeat == config.num_res_blocks:
                    up = self._residual(channels, channels, dilation.current(), resample="up")
                    entry.append(up)
                self.output_blocks.append(entry)

        outputs = 1 + config.learned_variance
        self.video_head_norm = TokenGroupNorm(channels, config.num_groups)
        self.video_head = zero_init(VideoConv(channels, config.video_channels * outputs, kind="3d"))
        self.audio_head_norm = TokenGroupNorm(channels, config.num_groups)
        self.audio_head = zero_init(AudioConv(channels, config.audio_channels * outputs))

    def _residual(
        self,
        in_channels: int,
        out_channels: int,
        dilation: int,
        *,
        resample: str | None = None,
        video_attention: bool = False,
        audio_attention: bool = False,
    ) -> ResidualBlock:
        config = self.config
        return ResidualBlock(
            ResidualBlockConfig(
                in_channels=in_channels,
                out_channels=out_channels,
                embedding_dim=config.width,
                dilation=dilation,
                resample=resample,
                scale_shift_norm=config.scale_shift_norm,
                dropout=config.dropout,
                video_conv=config.video_conv,
                video_attention=video_attention,
                audio_attention=audio_attention,
                num_heads=config.num_heads,
                num_groups=config.num_groups,
            )
        )

    def _cross(self, channels: int, window: int) -> CrossModalAttention:
        config = self.config
        heads = channels // config.cross_head_width if config.cross_head_width else config.num_heads
        return CrossModalAttention(channels, window, heads, config.num_groups)

    def _entry(
        self, in_channels: int, out_channels: int, factor: int, dilation: int
    ) -> nn.ModuleList:
        config = self.config
        entry = nn.ModuleList(
            [
                self._residual(
                    in_channels,
                    out_channels,
                    dilation,
                    video_attention=factor in config.video_attention_factors,
                    audio_attention=factor in config.audio_attention_factors,
                )
            ]
        )
        window = config.cross_window(factor)
        if window is not None:
            entry.append(self._cross(out_channels, window))
        return entry

    def _middle(self, channels: int, dilation: int) -> nn.ModuleList:
        def residual() -> ResidualBlock:
            return self._residual(
                channels, channels, dilation, video_attention=True, audio_attention=True
            )

        middle = nn.ModuleList([residual(), residual()])
        if self.config.middle_cross_attention:
            middle.insert(1, self._cross(channels, self.config.num_frames))
        return middle

    @property
    def shift_ranges(self) -> list[int]:
        """Return largest shift of each shifted cross-modal block, in call order (not the
        middle's)."""
        return [
            self.config.num_frames - block.window if self.config.shift_windows else 0
            for entries in (self.input_blocks, self.output_blocks)
            for entry in entries
            for block in entry.children()
            if isinstance(block, CrossModalAttention)
        ]

    def draw_window_shifts(self, generator: torch.Generator) -> list[int]:
        """Return one shift per block, uniform over 0..frames - window inclusive (section 3.3)."""
        return [
            int(torch.randint(largest + 1, (), generator=generator))
            for largest in self.shift_ranges
        ]

    def forward(
        self,
        xt: AV,
        timestep: Int[Tensor, " batch"],
        window_shifts: Sequence[int] | None = None,
    ) -> AV:
        """Return network output of the shapes of `xt` (twice the channels with `learned_variance`).

        Args:
            xt: noisy frames and waveform.
            timestep: step of the original chain, 0 .. num_train_timesteps - 1.
            window_shifts: one per shifted cross-modal block in call order, from
                `draw_window_shifts`; None shifts nothing. The network itself never draws.

        Raises:
            SoundreelError: wrong number of shifts, or sizes the network cannot halve.
        """
        shifts = self._checked_shifts(window_shifts)
        self._check_sizes(xt)
        embedding = self.time_embed(sinusoidal_embedding(timestep, self.config.width))
        h = AV(
            xt["video"].permute(0, 1, 3, 4, 2).contiguous(), xt["audio"].mT.contiguous()
        )  # b f h w c; b s c
        skips: list[AV] = []
        for entry in self.input_blocks:
            _return_free_memory(h)
            h = self._run(entry, h, embedding, shifts)
            skips.append(h)
        h = self._run(self.middle_blocks, h, embedding, None)
        for entry in self.output_blocks:
            _return_free_memory(h)
            skip = skips.pop()
            for modality in skip.present:  # the memory of one is free before the other's is taken
                h = h.replace(modality, torch.cat([h[modality], skip[modality]], dim=-1))
            del skip
            h = self._run(entry, h, embedding, shifts)
        video = self.video_head(self.video_head_norm(h["video"], is_activated=True))
        audio = self.audio_head(self.audio_head_norm(h["audio"], is_activated=True))
        return AV(
            video.permute(0, 1, 4, 2, 3).to(xt["video"].dtype), audio.mT.to(xt["audio"].dtype)
        )

    def _run(self, entry: nn.Module, h: AV, embedding: Tensor, shifts: list[int] | None) -> AV:
        """Return one entry of the network; `shifts` (in call order) is consumed, None means no
        shift."""
        own = [
            shifts.pop(0) if shifts is not None and isinstance(block, CrossModalAttention) else 0
            for block in entry.children()
        ]
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return _run_entry(entry, h, embedding, own)

        # The shifts are arguments, so the recomputation in the backward pass sees the same windows.
        def recomputable(video: Tensor, audio: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
            y = _run_entry(entry, AV(video, audio), embedding, own)
            return y["video"], y["audio"]

        video, audio = checkpoint(
            recomputable, h["video"], h["audio"], embedding, use_reentrant=False
        )
        return AV(video, audio)

    def _checked_shifts(self, window_shifts: Sequence[int] | None) -> list[int]:
        ranges = self.shift_ranges
        shifts = [0] * len(ranges) if window_shifts is None else list(window_shifts)
        if len(shifts) != len(ranges):
            raise ValueError(f"expected {len(ranges)} window shifts, got {len(shifts)}")
        return shifts

    def _check_sizes(self, xt: AV) -> None:
        levels = len(self.config.channel_mult) - 1
        height, width = xt["video"].shape[-2:]
        samples = xt["audio"].shape[-1]
        if height % 2**levels or width % 2**levels or samples % 4**levels:
            raise SoundreelError(
                f"frames of {height}x{width} and {samples} samples: sizes must be multiples of"
                f" {2**levels} pixels and {4**levels} samples for {levels + 1} levels"
            )


def _return_free_memory(h: AV) -> None:
    """Return free memory where tensors are so large that it is worth the milliseconds."""
    is_large = max(x.nbytes for x in h.tensors) >= LARGE_BYTES
    if is_large and h.device.type == "cpu" and not torch.is_grad_enabled():
        return_free_memory()


def _run_entry(entry: nn.Module, h: AV, embedding: Tensor, shifts: Sequence[int]) -> AV:
    for block, shift in zip(entry.children(), shifts, strict=True):
        if isinstance(block, CrossModalAttention):
            h = block(h, shift)
        elif isinstance(block, ResidualBlock):
            h = block(h, embedding)
        else:
            h = block(h)
    return h


def split_variance(output: AV) -> tuple[AV, AV]:
    """Split a `learned_variance` output into the prediction and the variance interpolation.

    Shapes:
        video `batch frame 2*channel height width` -> two of `channel`; audio alike on axis 1.
    """
    video, audio = output["video"].chunk(2, dim=-3), output["audio"].chunk(2, dim=-2)
    return AV(video[0], audio[0]), AV(video[1], audio[1])


def num_parameters(config: CoupledUNetConfig) -> int:
    """Return parameter count without allocating the network."""
    with torch.device("meta"):
        return sum(p.numel() for p in CoupledUNet(config).parameters())
