"""The convolutional residual block shared by encoders, U-Nets and discriminators."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.norms import group_norm


class ResidualBlock(nn.Module):
    """norm-SiLU-conv, plus an embedding, norm-SiLU-conv, plus the (projected) input.

    Args:
        embedding_dim: width of the embedding added per channel after the first convolution; 0 for
            a block without one.
        resample: n > 0 doubles height and width n times (nearest), n < 0 halves them -n times
            (mean), on the main path after the first SiLU and on the skip path.
        eps: of the norms.

    Source:
        He et al. 2016; the form of Dhariwal and Nichol 2021, appendix A, without scale-shift.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        embedding_dim: int = 0,
        resample: int = 0,
        eps: float = 1e-5,
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = group_norm(in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.embed = nn.Linear(embedding_dim, out_channels) if embedding_dim else None
        self.norm2 = group_norm(out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if zero_init:
            zero_parameters(self.conv2)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(
        self,
        x: Float[Tensor, "row channel height width"],
        embedding: Float[Tensor, "row dim"] | None = None,
    ) -> Float[Tensor, "row out_channel out_height out_width"]:
        h = self.conv1(resample(functional.silu(self.norm1(x)), self.resample))
        if self.embed is not None:
            assert embedding is not None, "this block was built with an embedding"
            h = h + self.embed(functional.silu(embedding))[:, :, None, None].to(h.dtype)
        h = self.conv2(functional.silu(self.norm2(h)))
        x = resample(x, self.resample)
        return h + (x if self.skip is None else self.skip(x))


def resample(x: Float[Tensor, "row channel height width"], times: int) -> Tensor:
    """Return height and width doubled `times` times (nearest), or halved -`times` times (mean)."""
    if times > 0:
        return functional.interpolate(x, scale_factor=float(2**times), mode="nearest")
    if times < 0:
        return functional.avg_pool2d(x, 2**-times)
    return x


class Downsample(nn.Module):
    """3x3 convolution with stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Nearest doubling, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "row channel height width"]) -> Tensor:
        return self.conv(resample(x, 1))
