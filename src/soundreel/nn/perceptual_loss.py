"""Perceptual distance of images: ST-LPIPS on AlexNet (Ghildyal and Liu 2022).

Its values are not comparable with plain LPIPS: every striding is preceded by a blur, so that a
shift of a pixel costs little. Letters: b batch, c channel, h height, w width.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from soundreel.nn.layout import channels_last

# Per stage: output channels, kernel size, padding, and the names its weights have in the file.
STAGES = (
    (64, 11, 2, "slice1.0"),
    (192, 5, 2, "slice2.5"),
    (384, 3, 1, "slice3.9"),
    (256, 3, 1, "slice4.11"),
    (256, 3, 1, "slice5.13"),
)
POOLED_STAGES = (1, 2)
SMALLEST_IMAGE = 32


class PerceptualLoss(nn.Module):
    """Distance of two images in the features of a frozen network; 0 for equal ones.

    Source:
        Zhang et al. 2018 (LPIPS), equation 1; Ghildyal and Liu 2022 for the blurred striding.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(channels for channels, _, _, _ in STAGES)]
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], channels, kernel, padding=padding)
            for i, (channels, kernel, padding, _) in enumerate(STAGES)
        )
        self.weights = nn.ParameterList(torch.ones(1, channels, 1, 1) for channels in widths[1:])
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        kernel = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("blur", torch.outer(kernel, kernel) / 16.0, persistent=False)
        self.requires_grad_(False)

    @classmethod
    def from_file(cls, path: Path | str) -> "PerceptualLoss":
        """Return the network with the published weights, frozen.

        Raises:
            ValueError: if the file cannot be read or holds another network.
        """
        try:
            stored = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path}: cannot be read as a safetensors file ({error})") from None
        names = {"scaling_layer.shift": "shift", "scaling_layer.scale": "scale"}
        for index, (_, _, _, stage) in enumerate(STAGES):
            names[f"lin{index}.model.1.weight"] = f"weights.{index}"
            for part in ("weight", "bias"):
                names[f"net.{stage}.{part}"] = f"convs.{index}.{part}"
        if set(names) != set(stored):
            odd = sorted(set(names) ^ set(stored))
            raise ValueError(f"{path}: not the ST-LPIPS AlexNet; differing tensors: {odd[:3]}")
        model = cls()
        model.load_state_dict({names[key]: value.float() for key, value in stored.items()})
        return model

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        """Return the distance of images in [-1, 1], at least 32 pixels wide and high."""
        if min(image.shape[-2:]) < SMALLEST_IMAGE:
            raise ValueError(
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
        h, features = channels_last((image - self.shift) / self.scale), []
        for index, conv in enumerate(self.convs):
            if index in POOLED_STAGES:
                h = self._halve(functional.max_pool2d(h, 3, stride=1))
            h = conv(h)
            if index == 0:
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
