"""The downsampling half that MM-LDM's encoders, projectors and discriminator share.

Rows are images: frame j of clip i is row `i * num_frames + j`. Letters: b batch, f frame, r row,
c channel, h height, w width.
"""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.attention import SelfAttention
from soundreel.nn.layout import channels_last, run
from soundreel.nn.residual import ResidualBlock


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """Sizes of a trunk.

    Args:
        channel_mult: one multiple of `width` per level; each level after the first halves the size.
        spatial_attention: down-factors of the levels with attention within each frame.
        temporal_attention: likewise over the frames, position by position.
        joint_attention: likewise over all positions of all frames.
        mix_frames: first and downsampling convolutions reach into the neighbouring frames.
    """

    in_channels: int
    width: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    head_width: int
    spatial_attention: tuple[int, ...] = ()
    temporal_attention: tuple[int, ...] = ()
    joint_attention: tuple[int, ...] = ()
    mix_frames: bool = True
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        factors = {2**level for level in range(len(self.channel_mult))}
        asked = {*self.spatial_attention, *self.temporal_attention, *self.joint_attention}
        if asked - factors:
            raise SoundreelError(
                f"attention at down-factors {sorted(asked - factors)}, but the levels have "
                f"{sorted(factors)}; name factors of existing levels"
            )

    @property
    def out_channels(self) -> int:
        return self.width * self.channel_mult[-1]

    @property
    def factor(self) -> int:
        """Return input positions per output position, each way."""
        return 2 ** (len(self.channel_mult) - 1)


class Trunk(nn.Module):
    """A convolution, then per level a halving one and residual blocks with attention."""

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.recompute = config.gradient_checkpointing
        self.blocks = nn.ModuleList(
            [ConvBlock(config.in_channels, config.width, 1, config.mix_frames)]
        )
        channels = config.width
        for level, mult in enumerate(config.channel_mult):
            if level:
                self.blocks.append(ConvBlock(channels, channels, 2, config.mix_frames))
            kinds = [
                kind
                for kind in ("spatial", "temporal", "joint")
                if 2**level in getattr(config, f"{kind}_attention")
            ]
            for _ in range(config.num_res_blocks):
                width = config.width * mult
                self.blocks.append(TrunkBlock(channels, width, kinds, config.head_width))
                channels = width

    def forward(
        self, x: Float[Tensor, "row channel height width"], num_frames: int = 1
    ) -> Float[Tensor, "row out_channel out_height out_width"]:
        h = channels_last(x)
        for block in self.blocks:
            h = run(block, h, num_frames, recompute=self.recompute)
        return h


class TrunkBlock(nn.Module):
    """A residual block per frame, then each kind of attention in the order given."""

    def __init__(
        self, in_channels: int, out_channels: int, kinds: list[str], head_width: int
    ) -> None:
        super().__init__()
        self.kinds = kinds
        self.residual = ResidualBlock(in_channels, out_channels)
        self.attention = nn.ModuleList(SelfAttention(out_channels, head_width) for _ in kinds)

    def forward(self, x: Float[Tensor, "row channel height width"], num_frames: int) -> Tensor:
        h = self.residual(x)
        for kind, attention in zip(self.kinds, self.attention, strict=True):
            h = attend(attention, h, num_frames, kind)
        return h


def attend(
    attention: nn.Module, x: Float[Tensor, "row channel height width"], num_frames: int, kind: str
) -> Float[Tensor, "row channel height width"]:
    """Attend within frames ("spatial"), along them ("temporal") or over all ("joint")."""
    if kind == "spatial":
        return attention(x)
    height = x.shape[2]
    if kind == "temporal":
        h = rearrange(x, "(b f) c h w -> (b h w) c f", f=num_frames)
        h = rearrange(attention(h), "(b h w) c f -> (b f) c h w", h=height, w=x.shape[3])
    else:
        h = rearrange(x, "(b f) c h w -> b c (f h w)", f=num_frames)
        h = rearrange(attention(h), "b c (f h w) -> (b f) c h w", f=num_frames, h=height)
    return channels_last(h)


class ConvBlock(nn.Module):
    """3x3 convolution, over neighbouring frames too with `mix_frames`; `stride` in space only."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, mix_frames: bool) -> None:
        super().__init__()
        self.stride = stride
        self.conv: nn.Conv2d | nn.Conv3d = (
            nn.Conv3d(in_channels, out_channels, 3, (1, stride, stride), 1)
            if mix_frames
            else nn.Conv2d(in_channels, out_channels, 3, stride, 1)
        )

    def forward(self, x: Float[Tensor, "row channel height width"], num_frames: int) -> Tensor:
        if isinstance(self.conv, nn.Conv2d):
            return self.conv(x)
        if num_frames == 1:  # the neighbours are padding: only the middle tap meets data
            weight = self.conv.weight[:, :, 1]
            return functional.conv2d(x, weight, self.conv.bias, self.stride, 1)
        h = self.conv(rearrange(x, "(b f) c h w -> b c f h w", f=num_frames))
        return channels_last(rearrange(h, "b c f h w -> (b f) c h w"))
