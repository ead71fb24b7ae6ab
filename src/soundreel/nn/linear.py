"""Linear maps of many tokens by the faster of two kernels."""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_MIN_ROWS = 256
_MIN_PRODUCTS = 1 << 22
"""Below either, converting the weights for oneDNN costs more than its kernel saves."""


class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(  # pyrefly: ignore[bad-override-param-name]
        self, x: Float[Tensor, "*axes dim"]
    ) -> Float[Tensor, "*axes out_dim"]:
        return linear(x, self.weight, self.bias)


def linear(
    x: Float[Tensor, "*axes dim"],
    weight: Float[Tensor, "out_dim dim"],
    bias: Float[Tensor, " out_dim"] | None,
) -> Float[Tensor, "*axes out_dim"]:
    """Return x weight^T + bias, equal to `functional.linear` up to rounding.

    MKL, which multiplies matrices in float32, takes its AVX-512 kernels on Intel's processors
    alone; oneDNN, which convolves, takes them anywhere. So on others a convolution of width 1 is
    twice as fast, forward and backward. The choice depends on the sizes alone, never on time.
    """
    rows = math.prod(x.shape[:-1])
    if rows < _MIN_ROWS or rows * weight.numel() < _MIN_PRODUCTS or not _by_convolution(x, weight):
        if x.dim() > 3:  # where PyTorch would add the bias in a pass of its own
            return functional.linear(x.flatten(0, -2), weight, bias).unflatten(0, x.shape[:-1])
        return functional.linear(x, weight, bias)
    tokens = x.reshape(1, rows, 1, -1).permute(0, 3, 1, 2)  # 1 dim rows 1, channels last
    # A dilation means nothing at width 1, but has one thread, too, take oneDNN's kernel.
    out = functional.conv2d(tokens, weight[:, :, None, None], bias, dilation=2)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


def _by_convolution(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN has the faster kernel for these tensors."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and _MKL_IS_SLOW
    )


def _mkl_is_slow() -> bool:
    """Return whether this processor has AVX-512 units that MKL leaves idle."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


_MKL_IS_SLOW = _mkl_is_slow()  # asked once: the question would break `torch.compile`'s graphs
