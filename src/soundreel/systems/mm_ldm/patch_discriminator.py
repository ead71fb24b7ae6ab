"""Stage 1 of MM-LDM, adversary: judges each patch of an image by itself."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from soundreel.nn.layout import channels_last
from soundreel.nn.norms import group_norm


@dataclass(frozen=True, kw_only=True)
class PatchDiscriminatorConfig:
    """Sizes; the defaults are those of latent diffusion's first stage.

    Args:
        num_layers: halvings of the image; 3 give patches of 70 pixels.
    """

    image_channels: int = 3
    width: int = 64
    num_layers: int = 3


class PatchDiscriminator(nn.Module):
    """Image to one logit per patch; high means real.

    Source:
        Isola et al. 2017, section 3.2.2.

    Deviation:
        Group norm in place of batch norm, so that an image's logits do not depend on its batch.
    """

    def __init__(self, config: PatchDiscriminatorConfig) -> None:
        super().__init__()
        widths = [config.width * min(2**i, 8) for i in range(config.num_layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(config.image_channels, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for index in range(config.num_layers):
            stride = 2 if index < config.num_layers - 1 else 1
            layers += [
                nn.Conv2d(widths[index], widths[index + 1], 4, stride, padding=1, bias=False),
                group_norm(widths[index + 1]),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch 1 patch_row patch_column"]:
        return self.layers(channels_last(image))


def hinge_discriminator_loss(
    real: Float[Tensor, "*shape"], fake: Float[Tensor, "*shape"]
) -> Float[Tensor, ""]:
    """Return half the sum of mean relu(1 - real) and mean relu(1 + fake).

    Source:
        Lim and Ye 2017; the half as in VQGAN (Esser et al. 2021).
    """
    return 0.5 * (torch.relu(1.0 - real).mean() + torch.relu(1.0 + fake).mean())
