"""Perceptual distance of images in the features of a frozen network.

LPIPS on VGG-16 or AlexNet (Zhang et al. 2018), and ST-LPIPS on AlexNet (Ghildyal and Liu 2022).
Values of different networks are not comparable; in ST-LPIPS a blur precedes every striding, so that
a shift of a pixel costs little. Letters: b batch, c channel, h height, w width.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.layout import channels_last

SMALLEST_IMAGE = 32


@dataclass(frozen=True)
class Layer:
    """A convolution followed by a rectifier.

    Attributes:
        name: in the published files: slice and place within torchvision's `features`.
    """

    name: str
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Backbone:
    """A network whose features are compared at the end of each stage.

    Attributes:
        stages: their layers; all but the first are preceded by max pooling where `pooled` says so.
        pool: kernel of the pooling, of stride 2.
        blurred: strides are taken by a blur (ST-LPIPS).
    """

    stages: tuple[tuple[Layer, ...], ...]
    pooled: tuple[int, ...]
    pool: int
    blurred: bool = False


def _alexnet(*, blurred: bool) -> Backbone:
    """Return AlexNet's stages; the files of ST-LPIPS count its blurs, too."""
    names = (0, 5, 9, 11, 13) if blurred else (0, 3, 6, 8, 10)
    sizes = ((64, 11, 1 if blurred else 4, 2), (192, 5, 1, 2), (384,), (256,), (256,))
    stages = tuple(
        (Layer(f"slice{n}.{name}", *size),)
        for n, (name, size) in enumerate(zip(names, sizes, strict=True), 1)
    )
    return Backbone(stages, pooled=(1, 2), pool=3, blurred=blurred)


def _vgg16() -> Backbone:
    places = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
    widths = (64, 128, 256, 512, 512)
    stages = tuple(
        tuple(Layer(f"slice{n}.{place}", width) for place in stage)
        for n, (stage, width) in enumerate(zip(places, widths, strict=True), 1)
    )
    return Backbone(stages, pooled=(1, 2, 3, 4), pool=2)


BACKBONES = {
    "LPIPS AlexNet": _alexnet(blurred=False),
    "LPIPS VGG-16": _vgg16(),
    "ST-LPIPS AlexNet": _alexnet(blurred=True),
}


class PerceptualLoss(nn.Module):
    """Distance of two images in the features of a frozen network; 0 for equal ones.

    Source:
        Zhang et al. 2018 (LPIPS), equation 1; Ghildyal and Liu 2022 for the blurred striding.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        layers = [layer for stage in backbone.stages for layer in stage]
        widths = [3, *(layer.channels for layer in layers)]
        self.convs = nn.ModuleList(
            nn.Conv2d(width, layer.channels, layer.kernel, layer.stride, layer.padding)
            for width, layer in zip(widths[:-1], layers, strict=True)
        )
        self.weights = nn.ParameterList(
            torch.ones(1, stage[-1].channels, 1, 1) for stage in backbone.stages
        )
        # Mean and deviation of ImageNet's colours, for images in [-1, 1].
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        kernel = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("blur", torch.outer(kernel, kernel) / 16.0, persistent=False)
        self.requires_grad_(False)

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        """Return the distance of images in [-1, 1], at least 32 pixels wide and high."""
        if min(image.shape[-2:]) < SMALLEST_IMAGE:
            raise SoundreelError(
                f"images of {image.shape[-2]}x{image.shape[-1]} pixels are too small for the "
                f"perceptual distance, which needs {SMALLEST_IMAGE}; set its weight to 0"
            )
        distances = [
            ((a - b).square() * weight).sum(dim=1).mean(dim=(1, 2))
            for a, b, weight in zip(
                self._features(image), self._features(target), self.weights, strict=True
            )
        ]
        return torch.stack(distances).sum(dim=0)

    def _features(self, image: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        h, features, convs = channels_last((image - self.shift) / self.scale), [], iter(self.convs)
        backbone = self.backbone
        for index, stage in enumerate(backbone.stages):
            if index in backbone.pooled:
                stride = 1 if backbone.blurred else 2
                h = functional.max_pool2d(h, backbone.pool, stride=stride)
                h = self._halve(h) if backbone.blurred else h
            for _ in stage:
                h = next(convs)(h)
                if backbone.blurred and index == 0:
                    h = self._halve(h)
                h = functional.relu(h)
            norm = h.float().square().sum(dim=1, keepdim=True).sqrt()
            features.append(h.float() / (norm + 1e-10))
        return features

    def _halve(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        channels = x.shape[1]
        kernel = self.blur.to(x.dtype).expand(channels, 1, 3, 3)
        padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, kernel, stride=2, groups=channels)
