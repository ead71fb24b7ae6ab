"""Group normalisation that accepts any channel count."""

from jaxtyping import Float
from torch import Tensor, nn


def group_norm(channels: int, *, eps: float = 1e-5) -> nn.GroupNorm:
    """GroupNorm with min(32, channels) groups, or the next smaller number that divides."""
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
        return super().forward(x)
