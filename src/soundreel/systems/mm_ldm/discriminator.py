"""Stage 2 of MM-LDM, adversary: judges a mel image together with two frames of the same clip.

A triple is a three-frame "video" of audio image, first frame and last frame. Letters: b batch,
f frame (slot), c channel, h height, w width.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.norms import group_norm
from soundreel.systems.mm_ldm.trunk import ConvBlock, Trunk, TrunkConfig

SLOTS = 3


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes; the defaults are MM-LDM's (5,376,545 parameters).

    Args:
        joint_attention: down-factors of the levels with attention over all positions of all slots.
        temporal_attention: likewise over the slots, position by position.
    """

    image_size: int = 256
    image_channels: int = 3
    width: int = 32
    channel_mult: tuple[int, ...] = (1, 2, 3, 4, 4, 6, 6)
    num_res_blocks: int = 1
    head_width: int = 32
    joint_attention: tuple[int, ...] = (32,)
    temporal_attention: tuple[int, ...] = (4, 8, 16)
    gradient_checkpointing: bool = False


class Discriminator(nn.Module):
    """Triple of images to one logit; high means real and matching.

    Source:
        MM-LDM, section 3 (adversarial loss) and appendix 1.4.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        trunk = TrunkConfig(
            in_channels=config.image_channels,
            width=config.width,
            channel_mult=config.channel_mult,
            num_res_blocks=config.num_res_blocks,
            head_width=config.head_width,
            joint_attention=config.joint_attention,
            temporal_attention=config.temporal_attention,
            gradient_checkpointing=config.gradient_checkpointing,
        )
        size = config.image_size
        self.slot_embed = nn.Parameter(
            torch.empty(1, config.image_channels, SLOTS, size, size).normal_()
        )
        self.trunk = Trunk(trunk)
        self.block = ConvBlock(trunk.out_channels, config.width, 1, mix_frames=True)
        self.norm = group_norm(config.width)
        self.out = nn.Linear(config.width, 1)

    def forward(
        self, triple: Float[Tensor, "batch slot channel height width"]
    ) -> Float[Tensor, " batch"]:
        """Return logits of triples (audio image, first frame, last frame) in [-1, 1]."""
        size, channels = self.config.image_size, self.config.image_channels
        if tuple(triple.shape[1:]) != (SLOTS, channels, size, size):
            raise SoundreelError(
                f"got triples of slot, channel, height, width {tuple(triple.shape[1:])}, expected "
                f"{(SLOTS, channels, size, size)}"
            )
        x = triple + rearrange(self.slot_embed, "1 c f h w -> 1 f c h w")
        h = self.trunk(rearrange(x, "b f c h w -> (b f) c h w"), SLOTS)
        h = rearrange(self.block(h, SLOTS), "(b f) c h w -> b c f h w", f=SLOTS)
        return self.out(functional.silu(self.norm(h)).mean(dim=(2, 3, 4))).squeeze(1)


def triples(
    audio: Float[Tensor, "batch channel height width"],
    first: Float[Tensor, "batch channel height width"],
    last: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch slot channel height width"]:
    return torch.stack([audio, first, last], dim=1)


def discriminator_batch(
    real: Float[Tensor, "batch slot channel height width"],
    fake: Float[Tensor, "batch slot channel height width"],
) -> tuple[Float[Tensor, "triple slot channel height width"], Float[Tensor, " triple"]]:
    """Return what the discriminator sees in one step, and its labels.

    The real triple is labelled 1. Labelled 0 are: all fake; fake with the real last frame; fake
    with the real first frame; fake with its frames in swapped order.

    Source:
        MM-LDM, section 3, as assembled in its release.
    """
    audio, first, last = fake.unbind(dim=1)
    parts = [
        real,
        fake,
        triples(audio, first, real[:, 2]),
        triples(audio, real[:, 1], last),
        triples(audio, last, first),
    ]
    labels = torch.zeros(len(parts), len(real), device=real.device)
    labels[0] = 1.0
    return torch.cat(parts), labels.flatten()


def hinge_loss(
    logits: Float[Tensor, " triple"], labels: Float[Tensor, " triple"]
) -> Float[Tensor, ""]:
    """Return mean of relu(1 - logit) where the label is 1 and of relu(1 + logit) where it is 0.

    Source:
        Lim and Ye 2017, "Geometric GAN", equation 5.
    """
    return functional.relu(1.0 - logits * (2.0 * labels - 1.0)).mean()
