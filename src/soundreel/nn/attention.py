"""Self-attention over the positions of an image, of a video's frames, or of both."""

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.norms import group_norm


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
            raise ValueError(
                f"{channels} channels do not divide into heads of width {head_width}; "
                "choose a head_width that divides every level's channels"
            )
        self.num_heads = channels // head_width
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zero_parameters(nn.Linear(channels, channels))

    def forward(
        self, x: Float[Tensor, "row channel *position"]
    ) -> Float[Tensor, "row channel *position"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # n t c
        query, key, value = rearrange(
            self.qkv(tokens), "n t (head three d) -> three n head t d", head=self.num_heads, three=3
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out = self.out(rearrange(mixed, "n head t d -> n t (head d)"))
        return x + out.transpose(1, 2).reshape(x.shape).to(x.dtype)
