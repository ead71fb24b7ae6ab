"""Stage 2 of MM-LDM, meaning: projectors to a shared space, class head, contrastive head.

s_v and s_a are small grids of semantic tokens (2x2 at full size). Letters: b batch, c channel,
h height, w width, t token, d dim.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from soundreel.nn.gather import gather_rows, process_rank
from soundreel.nn.layout import channels_last
from soundreel.nn.norms import group_norm
from soundreel.systems.mm_ldm.trunk import Trunk, TrunkConfig
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """Sizes of one projector; the defaults are the video projector (45,997,568 parameters)."""

    old_keys: ClassVar[Mapping[str, str | None]] = {"latent_channels": None}  # the encoders say it

    semantic_dim: int = 768
    width: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 3
    head_width: int = 32
    attention_factors: tuple[int, ...] = (1, 2, 4, 8)
    gradient_checkpointing: bool = False

    @property
    def factor(self) -> int:
        return 2 ** (len(self.channel_mult) - 1)


class Projector(nn.Module):
    """Perceptual latent to a grid of semantic tokens. Feed it a detached latent.

    Source:
        MM-LDM, section 3 and its appendix 1.4. The released file ends in a global mean, which its
        own heads and decoder cannot take; the paper's figure shows the grid returned here.
    """

    def __init__(self, config: ProjectorConfig, latent_channels: int) -> None:
        super().__init__()
        trunk = TrunkConfig(
            in_channels=latent_channels,
            width=config.width,
            channel_mult=config.channel_mult,
            num_res_blocks=config.num_res_blocks,
            head_width=config.head_width,
            spatial_attention=config.attention_factors,
            mix_frames=False,
            gradient_checkpointing=config.gradient_checkpointing,
        )
        self.trunk = Trunk(trunk)
        self.conv = nn.Conv2d(trunk.out_channels, config.semantic_dim, 3, padding=1)
        self.norm = group_norm(config.semantic_dim)
        self.out = nn.Conv2d(config.semantic_dim, config.semantic_dim, 1)

    def forward(
        self, latent: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch dim grid_height grid_width"]:
        return self.out(self._before_last(latent))

    def pooled(
        self, latent: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Return one vector per clip: the released form, with the mean before the last
        convolution."""
        return self.out(self._before_last(latent).mean(dim=(2, 3), keepdim=True)).flatten(1)

    def _before_last(self, latent: Tensor) -> Tensor:
        return functional.silu(self.norm(self.conv(self.trunk(latent))))


class ClassHead(nn.Module):
    """Class scores from the semantic tokens of both modalities.

    Source:
        MM-LDM, section 3 (21,835,785 parameters at 768 dims and 9 classes).
    """

    def __init__(self, semantic_dim: int, num_classes: int) -> None:
        super().__init__()
        self.map_video = ConvPair(semantic_dim)
        self.map_audio = ConvPair(semantic_dim)
        self.mix = nn.Linear(semantic_dim, semantic_dim)
        self.norm = group_norm(semantic_dim)
        self.out = nn.Linear(semantic_dim, num_classes)

    def forward(self, semantic: AV) -> Float[Tensor, "batch class_"]:
        """Return logits; audio tokens stand before video tokens."""
        audio = self.map_audio(channels_last(semantic["audio"])).flatten(2)
        video = self.map_video(channels_last(semantic["video"])).flatten(2)
        tokens = torch.cat([audio, video], dim=2).transpose(1, 2)  # b t c
        h = self.norm(self.mix(tokens).transpose(1, 2))  # b c t
        return self.out(functional.silu(h).mean(dim=2))

    def predict(self, semantic: AV) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Return most likely class and its probability."""
        confidence, label = self(semantic).softmax(dim=1).max(dim=1)
        return label, confidence


class ConvPair(nn.Module):
    """Two 3x3 convolutions with SiLU between; with a norm before it if `normalised`."""

    def __init__(self, channels: int, *, normalised: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = group_norm(channels) if normalised else None
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        h = self.conv1(x)
        return self.conv2(functional.silu(h if self.norm is None else self.norm(h)))


class ContrastiveHead(nn.Module):
    """Unit vectors of both modalities, and the symmetric InfoNCE loss over the global batch.

    Source:
        MM-LDM, section 3 (21,633,538 parameters at 768 and 256 dims); van den Oord et al. 2018.
    """

    def __init__(self, semantic_dim: int, feature_dim: int = 256) -> None:
        super().__init__()
        self.map_video = ConvPair(semantic_dim, normalised=True)
        self.map_audio = ConvPair(semantic_dim, normalised=True)
        self.out_video = nn.Linear(semantic_dim, feature_dim)
        self.out_audio = nn.Linear(semantic_dim, feature_dim)
        self.temperature_v2a = nn.Parameter(torch.full((1,), 0.07))
        self.temperature_a2v = nn.Parameter(torch.full((1,), 0.07))

    def forward(self, semantic: AV) -> AV:
        """Return `batch dim` features of length one."""
        video = self.map_video(channels_last(semantic["video"])).mean(dim=(2, 3))
        audio = self.map_audio(channels_last(semantic["audio"])).mean(dim=(2, 3))
        return AV(
            functional.normalize(self.out_video(video).float(), dim=1),
            functional.normalize(self.out_audio(audio).float(), dim=1),
        )

    def loss(self, semantic: AV, contrast: "Contrast | None" = None) -> Float[Tensor, ""]:
        """Return InfoNCE of this process's clips against the clips of all processes.

        Args:
            contrast: of a step in several batches; the value is then that of the whole step, and
                the gradients of all its batches add up to the step's.
        """
        own = self(semantic)
        if contrast is None:
            first_row = process_rank() * semantic.batch_size
            return self.info_nce(own, own.map(gather_rows), first_row=first_row)
        parts = [
            *zip(own.tensors, contrast.slopes.tensors, strict=True),
            (self.temperature_v2a, contrast.slopes_t[0]),
            (self.temperature_a2v, contrast.slopes_t[1]),
        ]
        share = torch.stack([(x * slope).sum() for x, slope in parts]).sum()
        return contrast.loss + share - share.detach()

    def contrast(self, features: AV) -> "Contrast":
        """Return the loss of a global batch, with its slopes at all features and temperatures."""
        leaves = features.map(lambda x: x.detach().requires_grad_())
        temperatures = (self.temperature_v2a, self.temperature_a2v)
        with torch.enable_grad():
            loss = self.info_nce(leaves, leaves, first_row=0)
            video, audio, *slopes_t = torch.autograd.grad(loss, [*leaves.tensors, *temperatures])
        return Contrast(loss=loss.detach(), slopes=AV(video, audio), slopes_t=tuple(slopes_t))

    def info_nce(self, own: AV, everyone: AV, *, first_row: int) -> Float[Tensor, ""]:
        """Return mean cross-entropy of finding a clip's other modality among everyone's, both ways.

        Args:
            everyone: features of the global batch, in which `own` starts at `first_row`.
        """
        target = first_row + torch.arange(own.batch_size, device=own.device)
        v2a = own["video"] @ everyone["audio"].T / self.temperature_v2a
        a2v = own["audio"] @ everyone["video"].T / self.temperature_a2v
        return 0.5 * (functional.cross_entropy(v2a, target) + functional.cross_entropy(a2v, target))


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """InfoNCE of a step in several batches: its value and where it pulls the features of one.

    Attributes:
        slopes: times the number of batches, because the losses of all are averaged.
        slopes_t: at the temperatures.

    Source:
        Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup",
        section 3.2 (gradient cache).
    """

    loss: Float[Tensor, ""]
    slopes: AV
    slopes_t: tuple[Tensor, ...]

    def of_rows(self, rows: slice, num_parts: int) -> "Contrast":
        """Return the part of a batch that holds these rows of the step's `num_parts` batches."""
        return replace(self, slopes=self.slopes.map(lambda x: num_parts * x[rows]))
