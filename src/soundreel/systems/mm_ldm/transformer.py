"""The spatial transformer of Stable Diffusion's U-Net: self-attention, cross-attention, MLP.

Letters: r row (image), c channel, h height, w width, t token, d dim.
"""

from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.attention import dot_product_attention
from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.layout import channels_last
from soundreel.nn.linear import Linear
from soundreel.nn.norms import group_norm


class SpatialTransformer(nn.Module):
    """Attention layers over an image's positions and a context, added to the image.

    Source:
        Rombach et al. 2022, appendix E.2.1.
    """

    def __init__(self, channels: int, num_heads: int, context_dim: int, depth: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise SoundreelError(
                f"{channels} channels do not divide into {num_heads} heads; "
                "choose a width divisible by num_heads"
            )
        self.norm = group_norm(channels, eps=1e-6)
        self.proj_in = Linear(channels, channels)
        self.layers = nn.ModuleList(
            TransformerLayer(channels, num_heads, context_dim) for _ in range(depth)
        )
        self.proj_out = zero_parameters(Linear(channels, channels))

    def forward(
        self,
        x: Float[Tensor, "row channel height width"],
        context: Float[Tensor, "source token context_dim"],
        source: Int[Tensor, " row"],
    ) -> Float[Tensor, "row channel height width"]:
        """
        Args:
            context: one sequence per source, so that images that share one (a clip's frames) also
                share its keys and values.
            source: which context each image attends to.
        """
        h = self.proj_in(rearrange(self.norm(x), "r c h w -> r (h w) c"))
        for layer in self.layers:
            h = layer(h, context, source)
        out = rearrange(self.proj_out(h), "r (h w) c -> r c h w", h=x.shape[2])
        return channels_last(x + out.to(x.dtype))


class TransformerLayer(nn.Module):
    def __init__(self, dim: int, num_heads: int, context_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.self_attention = Attention(dim, dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attention = Attention(dim, context_dim, num_heads)
        self.norm3 = nn.LayerNorm(dim)
        self.feed_forward = GatedFeedForward(dim)

    def forward(
        self,
        x: Float[Tensor, "row token dim"],
        context: Float[Tensor, "source context_token context_dim"],
        source: Int[Tensor, " row"],
    ) -> Float[Tensor, "row token dim"]:
        h = self.norm1(x)
        x = x + self.self_attention(h, h, None)
        x = x + self.cross_attention(self.norm2(x), context, source)
        return x + self.feed_forward(self.norm3(x))


class Attention(nn.Module):
    """Multi-head attention of tokens to a context."""

    def __init__(self, dim: int, context_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = Linear(dim, dim, bias=False)
        self.key = Linear(context_dim, dim, bias=False)
        self.value = Linear(context_dim, dim, bias=False)
        self.out = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "row token dim"],
        context: Float[Tensor, "source context_token context_dim"],
        source: Int[Tensor, " row"] | None,
    ) -> Float[Tensor, "row token dim"]:
        query, key, value = (
            rearrange(part, "r t (head d) -> r head t d", head=self.num_heads)
            for part in (self.query(x), self.key(context), self.value(context))
        )
        if source is not None:
            key, value = key[source], value[source]
        mixed = dot_product_attention(query, key, value)
        return self.out(rearrange(mixed, "r head t d -> r t (head d)"))


class GatedFeedForward(nn.Module):
    """Linear to twice four widths, one half gated by the GELU of the other, linear back.

    Source:
        Shazeer 2020, "GLU variants improve transformer", GEGLU.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = Linear(dim, 8 * dim)
        self.contract = Linear(4 * dim, dim)

    def forward(self, x: Float[Tensor, "row token dim"]) -> Float[Tensor, "row token dim"]:
        value, gate = self.expand(x).chunk(2, dim=-1)
        return self.contract(value * functional.gelu(gate))
