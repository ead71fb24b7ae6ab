"""Self-attention over the positions of an image, of a video's frames, or of both."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.linear import Linear
from soundreel.nn.norms import group_norm

SHORT = 2**16
"""Largest number of scores of a head for which the formula is spelled out."""


class SelfAttention(nn.Module):
    """Group norm, multi-head self-attention over all positions, and the input added.

    The joint projection orders its outputs head by head, each with its query, key and value in
    turn (the "legacy" order of the published networks).

    Source:
        Dhariwal and Nichol 2021, appendix A; the channel order is that of its first release.
    """

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        if channels % head_width:
            raise SoundreelError(
                f"{channels} channels do not divide into heads of width {head_width}; "
                "choose a head_width that divides every level's channels"
            )
        self.num_heads = channels // head_width
        self.norm = group_norm(channels)
        self.qkv = Linear(channels, 3 * channels)
        self.out = zero_parameters(Linear(channels, channels))

    def forward(
        self, x: Float[Tensor, "row channel *position"]
    ) -> Float[Tensor, "row channel *position"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # n t c
        query, key, value = rearrange(
            self.qkv(tokens), "n t (head three d) -> three n head t d", head=self.num_heads, three=3
        )
        mixed = dot_product_attention(query, key, value)
        out = self.out(rearrange(mixed, "n head t d -> n t (head d)"))
        return x + out.transpose(1, 2).reshape(x.shape).to(x.dtype)


def dot_product_attention(
    query: Float[Tensor, "row head token dim"],
    key: Float[Tensor, "row head source dim"],
    value: Float[Tensor, "row head source dim"],
    bias: Float[Tensor, "#row #head token source"] | None = None,
) -> Float[Tensor, "row head token dim"]:
    """Return softmax(query key^T / sqrt(dim) + bias) value, by the fastest way there is.

    PyTorch's fused kernel for CPUs multiplies small blocks one by one in its bfloat16 backward pass
    (forward and back for 1,024 rows of 17 tokens: 96 ms, 13 in the open; for 16 rows of 256 tokens
    the two are equal), so training there spells the formula out where tokens are few.

    Source:
        Vaswani et al. 2017, equation 1.
    """
    is_short = query.shape[2] * key.shape[2] <= SHORT
    is_slow = value.device.type == "cpu" and value.dtype == torch.bfloat16
    if not (is_short and is_slow and torch.is_grad_enabled()):
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    scores = scores if bias is None else scores + bias
    return scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype) @ value
