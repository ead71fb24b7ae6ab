"""Group normalisation: of any channel count, and of tokens with their channels last."""

import math
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


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` that is trained in bfloat16 on a CPU by `token_group_norm`.

    PyTorch's kernel for that took half of a training step of super-resolution.
    """

    def forward(  # pyrefly: ignore[bad-override-param-name]
        self, x: Float[Tensor, "row channel *position"]
    ) -> Float[Tensor, "row channel *position"]:
        is_image = x.dim() == 4 and not x.is_contiguous()  # channels last
        if is_image and x.dtype == torch.bfloat16 and _is_computed_here(x, self.weight):
            tokens = x.permute(0, 2, 3, 1).flatten(1, 2)
            weight, bias = self.weight[None], self.bias[None]
            rows = token_group_norm(tokens, self.num_groups, weight, bias, eps=self.eps)
            return rows.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return super().forward(_with_gradient(x, self.weight))


class CentredGroupNorm(GroupNorm):
    """`GroupNorm` that stays exact on almost constant float32 images stored channels last.

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
        return super().forward(x)


def token_group_norm(
    x: Float[Tensor, "batch token channel"],
    num_groups: int,
    weight: Float[Tensor, "#batch channel"],
    bias: Float[Tensor, "#batch channel"],
    *,
    eps: float = 1e-5,
    is_activated: bool = False,
) -> Float[Tensor, "batch token channel"]:
    """Group normalisation over all tokens of a row and channel / num_groups neighbouring channels.

    On the CPU it is computed here, in float32: PyTorch's kernel for channels in last place is up to
    eight times slower in the backward pass where channels are few, and loses digits on nearly flat
    input (see `CentredGroupNorm`). In bfloat16 its forward pass alone is the faster.

    Args:
        weight, bias: what multiplies a row's normalised channels, and what is added then.
        is_activated: return SiLU of the result, which is then not kept for the gradient.
    """
    if _is_computed_here(x, weight):
        rows = (len(x), -1)
        return _TokenGroupNorm.apply(
            x, num_groups, weight.expand(rows), bias.expand(rows), eps, is_activated
        )
    rows = x[:, :, None].permute(0, 3, 1, 2)  # b c n 1, channels last in memory
    if len(weight) == 1:
        rows = F.group_norm(_with_gradient(rows, weight), num_groups, weight[0], bias[0], eps=eps)
        y = rows.permute(0, 2, 3, 1)[:, :, 0]
    else:
        rows = F.group_norm(rows, num_groups, eps=eps)
        weight, bias = (each[:, None].to(rows.dtype) for each in (weight, bias))
        y = torch.addcmul(bias, rows.permute(0, 2, 3, 1)[:, :, 0], weight)
    return F.silu(y) if is_activated else y


def _is_computed_here(x: Tensor, weight: Tensor) -> bool:
    """Return whether `_TokenGroupNorm` is the faster, or the more exact."""
    has_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    kinds = (torch.float32, torch.bfloat16) if has_gradient else (torch.float32,)
    return x.device.type == "cpu" and x.dtype in kinds and weight.dtype == torch.float32


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
        ctx: Any,
        x: Tensor,
        num_groups: int,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        is_activated: bool,
    ) -> Tensor:
        values = x.float()
        mean, variance = _group_moments(values, num_groups)
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, mean, scale, weight, bias)
        ctx.num_groups, ctx.is_activated = num_groups, is_activated
        y = _scaled(values, mean, scale, weight, bias)
        return (F.silu(y, inplace=True) if is_activated else y).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = (each.float() for each in grad_outputs)
        given, mean, scale, weight, bias = ctx.saved_tensors
        x = given.float()
        if ctx.is_activated:
            y = _scaled(x, mean, scale, weight, bias)
            gradient = torch.ops.aten.silu_backward(gradient, y)
        centred = x - mean
        of_bias = gradient.sum(1)
        of_weight = (gradient * centred).sum(1) * scale[:, 0]
        count = centred.shape[1]
        of_mean = _group_means(weight * of_bias / count, ctx.num_groups)
        slope = _group_means(weight * of_weight / count, ctx.num_groups)
        of_x = torch.addcmul(-scale * of_mean, gradient, scale * weight[:, None])
        of_x.addcmul_(centred, -scale.square() * slope)
        return of_x.to(given.dtype), None, of_weight, of_bias, None, None


def _scaled(x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return w r (x - mean) + b in one pass over x."""
    slope = weight[:, None] * scale
    return torch.addcmul(torch.addcmul(bias[:, None], mean, slope, value=-1), x, slope)


def _group_moments(
    x: Float[Tensor, "batch token channel"], num_groups: int
) -> tuple[Float[Tensor, "batch 1 channel"], Float[Tensor, "batch 1 channel"]]:
    """Return mean and variance of each group's values, at each of its channels.

    PyTorch's kernel for the moments of columns sums up one number after the other; where tokens
    are many, columns that hold a part of them each keep its rounding small.
    """
    tokens, channels = x.shape[1:]
    parts = math.gcd(tokens, 64) if tokens >= 128 else 1
    columns = [
        torch.batch_norm_update_stats(row.reshape(-1, parts * channels), None, None, 0.0)
        for row in x
    ]
    means, variances = (
        torch.stack(part).unflatten(1, (parts, num_groups, -1))
        for part in zip(*columns, strict=True)
    )
    mean = means.mean((1, 3), keepdim=True)
    variance = (variances + (means - mean).square()).mean((1, 3), keepdim=True)
    shape = (-1, 1, -1, channels // num_groups)
    return mean.expand(shape).flatten(2), variance.expand(shape).flatten(2)


def _group_means(values: Float[Tensor, "batch channel"], num_groups: int) -> Tensor:
    """Return the mean of each group's channels, at each of them: `b 1 c`."""
    grouped = values.unflatten(1, (num_groups, -1))
    return grouped.mean(2, keepdim=True).expand_as(grouped).flatten(1)[:, None]
