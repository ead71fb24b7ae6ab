"""Latents to the generator's tokens, and tokens to its output.

Letters: b batch, n token, d width, c channel, h w grid, p q inside a patch, k coefficient, t frame.

Source: Sun et al. 2024 (arXiv 2410.01594), stage 3; tokens of frames are this package's own.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from soundreel.nn.embeddings import zero_parameters
from soundreel.nn.linear import Linear
from soundreel.nn.waves import cosine_waves
from soundreel.systems.mm_ldm.generator_config import GeneratorConfig


def position_table(
    width: int, rows: Num[Tensor, " row"], columns: Num[Tensor, " column"]
) -> Float[Tensor, "1 token dim"]:
    """Return sinusoids of the place in a grid: first half of the width the column, second the row.

    Each half is [sin, cos] at the frequencies 10000^(-k / (width / 4)).
    """
    frequency = 10_000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(rows.double(), columns.double(), indexing="ij")
    halves = []
    for place in (column, row):
        angle = place.flatten()[:, None] * frequency
        halves.append(torch.cat([angle.sin(), angle.cos()], dim=1))
    return torch.cat(halves, dim=1)[None].float()


def token_times(config: GeneratorConfig) -> dict[str, Float[Tensor, " _token"]]:
    """Return the middle of each token's time in columns of z_a, from 0; nan for tokens of the
    whole clip.

    In the order of the sequence, start tokens included.
    """
    whole = torch.tensor([torch.nan])
    rows, columns = config.grid("audio")
    patches_high, patches_wide = config.grid("video")
    frames = (torch.arange(config.frame_tokens) + 0.5) / config.frame_tokens * columns - 0.5
    return {
        "audio": torch.cat([whole, torch.arange(columns).repeat(rows)]),
        "video": torch.cat([whole.repeat(1 + patches_high * patches_wide), frames]),
    }


def time_bias(
    times: Float[Tensor, " token"], num_heads: int, time_biased_heads: int
) -> Float[Tensor, "head token other_token"]:
    """Return what is added to attention logits: the first heads look away from other times.

    Head i subtracts `4 / 2^i` per column of z_a between two tokens, and from tokens of the whole
    clip as much as from those a column away. The other heads, and tokens of the whole clip, look
    everywhere.
    """
    distance = (times[:, None] - times[None]).abs().nan_to_num(1.0)
    distance[times.isnan()] = 0
    slopes = distance.new_zeros(num_heads)
    slopes[:time_biased_heads] = 4.0 / 2.0 ** torch.arange(time_biased_heads)
    return -slopes[:, None, None] * distance


def linear(in_dim: int, out_dim: int) -> nn.Linear:
    """Return a linear layer that starts Xavier-uniform with zero bias, as all of the published
    network."""
    layer = Linear(in_dim, out_dim)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def modulation(width: int, num_outputs: int) -> nn.Sequential:
    """Map the time embedding to shifts, scales and gates; zero at the start (adaLN-Zero)."""
    return nn.Sequential(nn.SiLU(), zero_parameters(Linear(width, num_outputs * width)))


def modulate(
    x: Float[Tensor, "batch token dim"],
    shift: Float[Tensor, "batch dim"],
    scale: Float[Tensor, "batch dim"],
) -> Float[Tensor, "batch token dim"]:
    """Normalise every token, then scale and shift it as the timestep says (adaLN)."""
    x = functional.layer_norm(x, (x.shape[-1],), eps=1e-6)
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


class LatentEmbedding(nn.Module):
    """Tokens of one modality: noisy latent + known latent + place, behind one start token."""

    def __init__(
        self,
        config: GeneratorConfig,
        modality: str,
        *,
        in_channels: int,
        has_condition: bool,
    ) -> None:
        super().__init__()
        patch = config.patch_shape(modality)
        self.patch = zero_parameters(nn.Conv2d(in_channels, config.width, patch, patch))
        nn.init.xavier_uniform_(self.patch.weight.view(config.width, -1))
        # Not zero at the start: a known latent is seen from the first step on.
        self.condition_patch = (
            nn.Conv2d(in_channels, config.width, patch, patch) if has_condition else None
        )
        rows, columns = config.grid(modality)
        table = position_table(config.width, torch.arange(rows), torch.arange(columns))
        self.register_buffer("position_table", table)
        self.position_table: Tensor
        self.modality_embedding = (
            nn.Parameter(torch.empty(1, rows * columns, config.width).normal_(std=0.01))
            if config.modality_embedding
            else None
        )
        self.start = nn.Parameter(torch.empty(1, config.width).normal_())

    def forward(
        self,
        xt: Float[Tensor, "batch channel height width"],
        condition: Float[Tensor, "batch channel height width"] | None,
    ) -> Float[Tensor, "batch token dim"]:
        x = self.patch(xt)  # b d h w
        if self.condition_patch is not None:
            # The bias acts for an absent condition too: absent is the zero latent.
            known = torch.zeros_like(xt) if condition is None else condition
            x = x + self.condition_patch(known)
        x = rearrange(x, "b d h w -> b (h w) d") + self.position_table
        if self.modality_embedding is not None:
            x = x + self.modality_embedding
        return torch.cat([self.start.expand(x.shape[0], 1, -1), x], dim=1)


class LatentHead(nn.Module):
    """From one modality's tokens to the network's output for its latent."""

    def __init__(self, config: GeneratorConfig, modality: str, *, channels: int) -> None:
        super().__init__()
        self.patch_shape = config.patch_shape(modality)
        self.rows, _ = config.grid(modality)
        height, width = self.patch_shape
        self.modulation = modulation(config.width, 2)
        self.output = zero_parameters(Linear(config.width, channels * height * width))

    def forward(
        self, x: Float[Tensor, "batch token dim"], time: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch channel height width"]:
        shift, scale = self.modulation(time).chunk(2, dim=1)
        x = self.output(modulate(x, shift, scale))
        return rearrange(
            x,
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=self.rows,
            p=self.patch_shape[0],
            q=self.patch_shape[1],
        )


class FrameEmbedding(nn.Module):
    """Tokens of z_v's mean over the frames, in patches, and then one of every frame's changes."""

    def __init__(self, config: GeneratorConfig, *, factor: int, has_condition: bool) -> None:
        super().__init__()
        self.count, self.factor = config.frame_tokens, factor
        channels, size = config.latents.video_channels // self.count, config.latents.video_size
        self.mean = LatentEmbedding(
            config, "video", in_channels=factor * channels, has_condition=has_condition
        )
        elements = factor * channels * size**2
        self.changes = linear(elements, config.width)
        self.condition_changes = Linear(elements, config.width) if has_condition else None
        self.register_buffer("waves", cosine_waves(self.count), persistent=False)
        # Columns of z_a and frames at one time have one position.
        times = token_times(config)["video"][-self.count :]
        table = position_table(config.width, torch.tensor([0]), times)
        self.register_buffer("position_table", table)
        self.position_table: Tensor
        self.frame_embedding = (
            nn.Parameter(torch.empty(1, self.count, config.width).normal_(std=0.01))
            if config.modality_embedding
            else None
        )

    def forward(
        self,
        xt: Float[Tensor, "batch channel height width"],
        condition: Float[Tensor, "batch channel height width"] | None,
    ) -> Float[Tensor, "batch token dim"]:
        mean, changes = self._split(xt)
        known_mean, known_changes = (None, None) if condition is None else self._split(condition)
        x = self.changes(changes)
        if self.condition_changes is not None:
            known = torch.zeros_like(changes) if known_changes is None else known_changes
            x = x + self.condition_changes(known)
        x = x + self.position_table
        if self.frame_embedding is not None:
            x = x + self.frame_embedding
        return torch.cat([self.mean(mean, known_mean), x], dim=1)

    def _split(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> tuple[
        Float[Tensor, "batch mean_channel height width"], Float[Tensor, "batch frame element"]
    ]:
        x = rearrange(x, "b (f k c) h w -> b k (f c) h w", f=self.factor, k=self.count)
        waves = self.get_buffer("waves").to(x)
        return x[:, 0], torch.einsum("tk,bke->bte", waves, x[:, 1:].flatten(2))


class FrameHead(nn.Module):
    """Inverse of `FrameEmbedding`: from its tokens to the output for z_v."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        count, latents = config.frame_tokens, config.latents
        self.shape = (latents.video_channels // count, latents.video_size, latents.video_size)
        self.mean = LatentHead(config, "video", channels=self.shape[0])
        self.modulation = modulation(config.width, 2)
        self.output = zero_parameters(Linear(config.width, math.prod(self.shape)))
        self.register_buffer("waves", cosine_waves(count), persistent=False)

    def forward(
        self, x: Float[Tensor, "batch token dim"], time: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch channel height width"]:
        waves = self.get_buffer("waves").to(x)
        shift, scale = self.modulation(time).chunk(2, dim=1)
        patches = x.shape[1] - len(waves)
        frames = self.output(modulate(x[:, patches:], shift, scale))
        changes = torch.einsum("tk,bte->bke", waves, frames).unflatten(2, self.shape)
        return torch.cat([self.mean(x[:, :patches], time), changes.flatten(1, 2)], dim=1)
