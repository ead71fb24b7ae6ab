"""Group normalisation: of any channel count, and of tokens with their channels last."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def group_norm(channels: int, *, eps: float = 1e-5) -> nn.GroupNorm:
    """Return a GroupNorm with min(32, channels) groups, or the next smaller number that divides."""
    groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
    return CentredGroupNorm(groups, channels, eps=eps)


class CentredGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that stays exact on almost constant float32 images stored channels last.

    PyTorch's CPU kernel for that layout takes the variance as E[x^2] - E[x]^2, whose rounding error
    is amplified a hundredfold where an image is nearly flat (black frames, an all-zero latent).
    Subtracting the group's mean first removes the cancellation and changes nothing else.
    """

    def forward(  # pyrefly: ignore[bad-override-param-name]
        self, x: Float[Tensor, "row channel *position"]
    ) -> Float[Tensor, "row channel *position"]:
        if (
            x.dim() == 4
            and x.device.type == "cpu"
            and x.element_size() == 4
            and not x.is_contiguous()
        ):
            # A shift changes neither result nor gradient, so the mean needs no gradient of its own.
            mean = x.detach().mean(dim=(2, 3)).unflatten(1, (self.num_groups, -1))
            mean = mean.mean(dim=2, keepdim=True).expand_as(mean).flatten(1)
            x = x - mean[:, :, None, None]
        return super().forward(_with_gradient(x, self.weight))


def token_group_norm(
    x: Float[Tensor, "batch token channel"],
    num_groups: int,
    weight: Float[Tensor, " channel"],
    bias: Float[Tensor, " channel"],
    eps: float = 1e-5,
) -> Float[Tensor, "batch token channel"]:
    """Group normalisation over all tokens of a row and channel / num_groups neighbouring channels.

    In float32 on the CPU it is computed here: PyTorch's kernel for channels in last place is up to
    eight times slower in the backward pass where channels are few, and loses digits on nearly flat
    input (see `CentredGroupNorm`).
    """
    if x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32:
        return _TokenGroupNorm.apply(x, num_groups, weight, bias, eps)
    rows = x[:, :, None].permute(0, 3, 1, 2)  # b c n 1, channels last in memory
    rows = F.group_norm(_with_gradient(rows, weight), num_groups, weight, bias, eps=eps)
    return rows.permute(0, 2, 3, 1)[:, :, 0]


def _with_gradient(x: Tensor, weight: Tensor) -> Tensor:
    """Return the same values, needing a gradient if the weight does.

    PyTorch's CPU kernel for channels-last input crashes in its backward pass (2.13) where the
    weight alone needs one, as behind a frozen network.
    """
    if torch.is_grad_enabled() and weight.requires_grad and not x.requires_grad:
        return x.detach().requires_grad_()
    return x


class _TokenGroupNorm(torch.autograd.Function):
    """With d = x - mean and r = 1 / deviation: y = w r d + b, in passes along contiguous memory."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, num_groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        centred = x - _group_means(x.mean(1), num_groups)
        variance = _group_means(centred.square().mean(1), num_groups)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(centred, scale, weight)
        ctx.num_groups = num_groups
        return torch.addcmul(bias, centred, weight * scale)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        centred, scale, weight = ctx.saved_tensors
        of_bias = gradient.sum(1)
        of_weight = (gradient * centred).sum(1) * scale[:, 0]
        count = centred.shape[1]
        mean = _group_means(weight * of_bias / count, ctx.num_groups)
        slope = _group_means(weight * of_weight / count, ctx.num_groups)
        of_x = torch.addcmul(-scale * mean, gradient, scale * weight)
        of_x.addcmul_(centred, -scale.square() * slope)
        return of_x, None, of_weight.sum(0), of_bias.sum(0), None


def _group_means(values: Float[Tensor, "batch channel"], num_groups: int) -> Tensor:
    """Return the mean of each group's channels, at each of them: `b 1 c`."""
    grouped = values.unflatten(1, (num_groups, -1))
    return grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1)[:, None]
