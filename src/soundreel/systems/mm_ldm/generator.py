"""MM-LDM's generator: one diffusion transformer over both perceptual latents (its third stage).

The tokens of both modalities and of the context stand in one sequence,

    [context ; audio start ; audio latent ; video start ; video latent],

and attend to one another without restriction. Only the timestep (and a class label, if there is
one) modulates the blocks. A known modality enters as a second, clean latent that is embedded beside
the noisy one. Letters: b batch, n token, d width, c channel, h w grid, p q inside a patch.

Source: Sun et al. 2024 (arXiv 2410.01594), stage 3 and appendix.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor, nn
from torch.nn import functional

from soundreel.diffusion.denoiser import Prediction
from soundreel.errors import SoundreelError
from soundreel.nn.attention import dot_product_attention
from soundreel.nn.embeddings import TwoLayerMLP, sinusoidal_embedding
from soundreel.nn.layout import run
from soundreel.systems.mm_ldm.generator_config import GeneratorConfig
from soundreel.systems.mm_ldm.latent_tokens import (
    FrameEmbedding,
    FrameHead,
    LatentEmbedding,
    LatentHead,
    linear,
    modulate,
    modulation,
    time_bias,
    token_times,
)
from soundreel.types import AV

TIME_FEATURES = 256
NOTHING = AV(None, None)
# The sequence holds audio before video, unlike every pair in this package.
SEQUENCE_ORDER = ("audio", "video")


class Attention(nn.Module):
    """Multi-head self-attention over the whole sequence."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = linear(width, 3 * width)
        self.output = linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        bias: Float[Tensor, "head token other_token"] | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        q, k, v = rearrange(
            self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        mask = None if bias is None else bias.to(q.dtype)[None]
        x = dot_product_attention(q, k, v, mask)
        return self.output(rearrange(x, "b h n d -> b n (h d)"))


class Block(nn.Module):
    """Transformer block whose norms and residual gates the timestep sets (adaLN-Zero).

    Source:
        Peebles and Xie 2023, section 3.2.
    """

    def __init__(self, width: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention = Attention(width, num_heads)
        self.mlp = nn.Sequential(
            linear(width, hidden), nn.GELU(approximate="tanh"), linear(hidden, width)
        )
        self.modulation = modulation(width, 6)

    def forward(
        self,
        x: Float[Tensor, "batch token dim"],
        time: Float[Tensor, "batch dim"],
        bias: Float[Tensor, "head token other_token"] | None = None,
    ) -> Float[Tensor, "batch token dim"]:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(time).chunk(6, dim=1)
        x = x + gate_1[:, None] * self.attention(modulate(x, shift_1, scale_1), bias)
        return x + gate_2[:, None] * self.mlp(modulate(x, shift_2, scale_2))


def latent_embedding(
    config: GeneratorConfig, modality: str, factor: int, has_condition: bool
) -> LatentEmbedding | FrameEmbedding:
    """Map `factor` latents of a modality beside one another to tokens."""
    if modality == "video" and config.frame_tokens:
        return FrameEmbedding(config, factor=factor, has_condition=has_condition)
    channels = factor * config.latent_channels(modality)
    return LatentEmbedding(config, modality, in_channels=channels, has_condition=has_condition)


def latent_head(config: GeneratorConfig, modality: str) -> LatentHead | FrameHead:
    """Map a modality's tokens to the network's output for its latent."""
    if modality == "video" and config.frame_tokens:
        return FrameHead(config)
    channels = config.latent_channels(modality) * (2 if config.learned_variance else 1)
    return LatentHead(config, modality, channels=channels)


class TransformerTrunk(nn.Module):
    """Embeddings and blocks: what the generator and the history encoder have in common."""

    def __init__(
        self, config: GeneratorConfig, *, channel_factor: int = 1, has_condition: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.embed = nn.ModuleDict(
            {
                name: latent_embedding(config, name, channel_factor, has_condition)
                for name in ("video", "audio")
            }
        )
        self.time_embedding = TwoLayerMLP(TIME_FEATURES, config.width, config.width)
        for layer in (self.time_embedding.first, self.time_embedding.last):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.context_projection = linear(config.context_dim, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        bias = None
        if config.time_biased_heads:
            times = token_times(config)
            every = torch.cat([times[name] for name in SEQUENCE_ORDER])
            bias = time_bias(every, config.num_heads, config.time_biased_heads)
        self.register_buffer("time_bias", bias, persistent=False)

    def attention_bias(
        self, num_context_tokens: int
    ) -> Float[Tensor, "head token other_token"] | None:
        """Return the attention bias of all blocks; None where no head is biased."""
        if self.time_bias is None:
            return None
        # Context is of the whole clip, as is the first token behind it, a start token.
        before = (num_context_tokens, 0, num_context_tokens, 0)
        return functional.pad(self.time_bias[None], before, mode="replicate")[0]

    def embed_time(self, timestep: Num[Tensor, " batch"]) -> Float[Tensor, "batch dim"]:
        features = sinusoidal_embedding(timestep, TIME_FEATURES)
        return self.time_embedding(features.to(self.time_embedding.first.weight.dtype))

    def embed_tokens(
        self, xt: AV, condition: AV, context: Float[Tensor, "batch token context_dim"]
    ) -> Float[Tensor, "batch all_tokens dim"]:
        """Return the sequence that enters the first block."""
        tokens = [self.embed[name](xt[name], getattr(condition, name)) for name in SEQUENCE_ORDER]
        return torch.cat([self.context_projection(context), *tokens], dim=1)


class JointTransformer(TransformerTrunk):
    """The network of the generator: noisy latents in, the model output for both latents out."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__(config)
        self.head = nn.ModuleDict({name: latent_head(config, name) for name in self.embed})
        if config.num_classes:
            # The last row stands for "no class".
            self.class_embedding = nn.Embedding(config.num_classes + 1, config.width)
            nn.init.normal_(self.class_embedding.weight, std=0.02)

    def forward(
        self,
        xt: AV,
        timestep: Num[Tensor, " batch"],
        context: Float[Tensor, "batch token context_dim"],
        condition: AV = NOTHING,
        label: Int[Tensor, " batch"] | None = None,
        taps: Sequence[Float[Tensor, "batch all_tokens dim"]] = (),
    ) -> AV:
        """Predict the model output (epsilon, x0 or v) for the latents `xt`.

        Args:
            timestep: original index in the training chain, one for both modalities of a clip.
            condition: known clean latents; an absent one counts as zeros.
            label: class index in [0, num_classes], where num_classes means none.
            taps: `taps[i]` is added to the output of block i (long-video history).
        """
        time = self.embed_time(timestep)
        if label is not None:
            time = time + self.class_embedding(label)
        x = self.embed_tokens(xt, condition, context)
        bias = self.attention_bias(context.shape[1])
        for i, block in enumerate(self.blocks):
            x = run(block, x, time, bias, recompute=self.recompute)
            if i < len(taps):
                x = x + taps[i]
        return self.read(x, time, num_context_tokens=context.shape[1])

    def read(
        self,
        x: Float[Tensor, "batch all_tokens dim"],
        time: Float[Tensor, "batch dim"],
        *,
        num_context_tokens: int,
    ) -> AV:
        """Cut the sequence into modalities, leave out the start tokens, apply the heads."""
        output = AV(None, None)
        offset = num_context_tokens
        for name in SEQUENCE_ORDER:
            offset += 1  # the start token
            end = offset + self.config.num_tokens(name)
            output = output.replace(name, self.head[name](x[:, offset:end], time))
            offset = end
        return output


class Generator(nn.Module):
    """The transformer with its learned prompt: everything stage 3 trains."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = JointTransformer(config)
        self.prompt = nn.Parameter(0.1 * torch.randn(config.num_context_tokens, config.context_dim))

    def context(
        self,
        kept: Bool[Tensor, " batch"],
        text: Float[Tensor, "batch token context_dim"] | None = None,
    ) -> Float[Tensor, "batch token context_dim"]:
        """Return the learned prompt, or a text's token states in its place; zeros where it is
        not kept."""
        states = self.prompt[None] if text is None else text
        return states * kept[:, None, None].to(states)

    def forward(
        self,
        xt: AV,
        timestep: Num[Tensor, " batch"],
        *,
        condition: AV = NOTHING,
        context_kept: Bool[Tensor, " batch"] | None = None,
        text: Float[Tensor, "batch token context_dim"] | None = None,
        label: Int[Tensor, " batch"] | None = None,
        history_tokens: Float[Tensor, "batch history_token context_dim"] | None = None,
        taps: Sequence[Float[Tensor, "batch all_tokens dim"]] = (),
    ) -> Prediction:
        """Predict the model output for noisy latents.

        Args:
            condition: known clean latents, zeros in the rows of a batch that know nothing.
            context_kept: False in a row makes its prompt zero and its class unknown (null branch).
            text: token states of a text encoder that take the place of the learned prompt.
            label: class indices; needed if, and only if, the configuration has classes.
            history_tokens, taps: what a `HistoryEncoder` knows of the clip before: further context
                tokens, and what is added to the blocks' outputs.

        Raises:
            SoundreelError: labels without classes in the configuration, or classes without labels.
        """
        if (label is not None) != bool(self.config.num_classes):
            raise SoundreelError(
                f"this generator has {self.config.num_classes} classes, "
                f"got {'no labels' if label is None else 'labels'}"
            )
        if context_kept is None:
            context_kept = torch.ones(timestep.shape, dtype=torch.bool, device=timestep.device)
        if label is not None:
            label = torch.where(context_kept, label, self.config.num_classes)
        context = self.context(context_kept, text)
        if history_tokens is not None:
            context = torch.cat([context, history_tokens], dim=1)
        output = self.transformer(xt, timestep, context, condition, label, taps)
        if not self.config.learned_variance:
            return Prediction(output)
        return Prediction(
            output.map(lambda x: x.chunk(2, dim=1)[0]), output.map(lambda x: x.chunk(2, dim=1)[1])
        )
