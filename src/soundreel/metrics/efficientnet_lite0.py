"""EfficientNet-Lite0 (ImageNet), the picture features of the stand-in metric
`kvd/efficientnet-lite0`.

Inverted residual blocks with ReLU6 and without squeeze-and-excitation; names as in the port that
the weights come from. A clip's features are the mean over its frames of the 1280 pooled features,
followed by the mean absolute change of each from frame to frame, so that a frozen or jittering
clip is seen.
"""

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Num, UInt8
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.metrics.padding import pad_same
from soundreel.metrics.weights import load_weights

Image = Float[Tensor, "batch _channel _height _width"]

IMAGE_SIZE = 224
NUM_FEATURES = 1280
IMAGES_AT_ONCE = 1  # memory stays small whatever the length of a clip
# repeats, kernel, stride, expansion, output channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _SameConv(nn.Conv2d):
    def forward(self, input: Image) -> Image:  # noqa: A002 (the parent's name)
        return super().forward(pad_same(input, self.kernel_size, self.stride))


class _Block(nn.Module):
    """Inverted residual: widen, filter each channel, project; skipped where sizes allow."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_skip = stride == 1 and in_channels == out_channels
        self.is_widening = expansion != 1
        if self.is_widening:
            self._expand_conv = nn.Conv2d(in_channels, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
        self._depthwise_conv = _SameConv(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = _norm(hidden)
        self._project_conv = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self._bn2 = _norm(out_channels)

    def forward(self, x: Image) -> Image:
        h = x
        if self.is_widening:
            h = functional.relu6(self._bn0(self._expand_conv(h)))
        h = functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.has_skip else h


class EfficientNetLite0(nn.Module):
    """RGB images of 224 pixels, scaled as (level - 127) / 128, to 1280 features or 1000 logits.

    Args:
        has_classifier: without it there are features only.
    """

    def __init__(self, has_classifier: bool = True) -> None:
        super().__init__()
        self._conv_stem = _SameConv(3, 32, 3, 2, bias=False)
        self._bn0 = _norm(32)
        blocks, channels = [], 32
        for repeats, kernel, stride, expansion, out_channels in STAGES:
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(_Block(channels, out_channels, kernel, step, expansion))
                channels = out_channels
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(channels, NUM_FEATURES, 1, bias=False)
        self._bn1 = _norm(NUM_FEATURES)
        self._fc = nn.Linear(NUM_FEATURES, 1000) if has_classifier else None

    def features(self, image: Image) -> Float[Tensor, "batch _dim"]:
        """Compute the 1280 features averaged over the picture."""
        x = functional.relu6(self._bn0(self._conv_stem(image)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))

    def forward(self, image: Image) -> Float[Tensor, "batch _logit"]:
        """Compute the ImageNet logits."""
        if self._fc is None:
            raise ValueError("this EfficientNet-Lite0 was built without its classifier")
        return self._fc(self.features(image))


class EfficientNetLite0Features:
    """The extractor `efficientnet-lite0`: RGB frames of any size to 2560 features a clip."""

    name = "efficientnet-lite0"
    modality = "video"
    sample_rate = 0  # it takes no sound

    def __init__(self, weights_path: str | Path) -> None:
        self.network = EfficientNetLite0(has_classifier=False)
        self.weights_sha256 = load_weights(
            self.network, weights_path, "EfficientNet-Lite0", ignored=("_fc.",)
        )

    def prepare(
        self, images: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 size size"]:
        """Return pictures at the size of the network, values 0 to 255."""
        pixels = images.float()
        if pixels.shape[-2:] == (IMAGE_SIZE, IMAGE_SIZE):
            return pixels
        size = (IMAGE_SIZE, IMAGE_SIZE)
        return functional.interpolate(
            pixels, size=size, mode="bilinear", align_corners=False, antialias=True
        )

    @torch.no_grad()
    def __call__(
        self, frames: Num[Tensor, "batch frame 3 height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Compute features of RGB frames, uint8 or from `prepare`."""
        if frames.shape[1] < 2:
            raise SoundreelError("efficientnet-lite0 describes motion too: a clip needs two frames")
        images = rearrange(frames, "b f c h w -> (b f) c h w")
        found = torch.cat([self._features(part) for part in images.split(IMAGES_AT_ONCE)])
        rows = rearrange(found, "(b f) d -> b f d", b=frames.shape[0])
        return torch.cat([rows.mean(dim=1), rows.diff(dim=1).abs().mean(dim=1)], dim=1)

    def _features(self, images: Num[Tensor, "image 3 height width"]) -> Float[Tensor, "image _"]:
        pixels = self.prepare(images) if images.dtype == torch.uint8 else images
        pixels = ((pixels - 127) / 128).to(memory_format=torch.channels_last)
        return self.network.features(pixels)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
