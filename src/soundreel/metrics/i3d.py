"""I3D, the network of the video metrics FVD and KVD (Carreira and Zisserman 2017, RGB,
Kinetics-400).

The parameter names are those of the widespread PyTorch port, so that its weights, converted to
safetensors, load as they are. Every convolution and pooling pads like TensorFlow's "same": the
total depends on the input size, the odd element goes to the end.
"""

from pathlib import Path

import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.metrics.padding import pad_same
from soundreel.metrics.reference_evaluator import reference_video_input
from soundreel.metrics.weights import load_weights

Video = Float[Tensor, "batch _channel _frame _height _width"]

# Output widths: 1x1 | 1x1 then 3x3 | 1x1 then 3x3 | pool then 1x1
INCEPTION_WIDTHS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
POOLS = {  # pooled before the named stage: kernel and stride
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
MIN_FRAMES = 9  # four halvings of time must leave the two frames of the last pooling


class Unit(nn.Module):
    """Convolution with "same" padding, batch norm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int] = (1, 1, 1),
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels)

    def forward(self, x: Video) -> Video:
        kernel, stride = self.conv3d.kernel_size, self.conv3d.stride
        return functional.relu(self.bn(self.conv3d(pad_same(x, kernel, stride))))


class Inception(nn.Module):
    """Four parallel branches, concatenated over channels."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = Unit(in_channels, widths[0])
        self.b1a = Unit(in_channels, widths[1])
        self.b1b = Unit(widths[1], widths[2], (3, 3, 3))
        self.b2a = Unit(in_channels, widths[3])
        self.b2b = Unit(widths[3], widths[4], (3, 3, 3))
        self.b3b = Unit(in_channels, widths[5])

    def forward(self, x: Video) -> Video:
        pooled = functional.max_pool3d(pad_same(x, (3, 3, 3), (1, 1, 1)), 3, stride=1)
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled))
        return torch.cat(branches, dim=1)


class Head(nn.Module):
    """The classifier: a 1x1x1 convolution with a bias."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, num_classes, 1)

    def forward(self, x: Video) -> Video:
        return self.conv3d(x)


class I3D(nn.Module):
    """Clip to 400 Kinetics logits, averaged over time.

    Shapes:
        input `batch channel frame height width`, RGB in [-1, 1], at least 9 frames, 224 pixels.
    """

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, (7, 7, 7), (2, 2, 2))
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, (3, 3, 3))
        channels = 192
        for name, widths in INCEPTION_WIDTHS.items():
            self.add_module(name, Inception(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = Head(channels, num_classes)

    def forward(self, video: Video) -> Float[Tensor, "batch logit"]:
        if video.shape[2] < MIN_FRAMES:
            raise SoundreelError(
                f"I3D needs at least {MIN_FRAMES} frames, got {video.shape[2]}: use longer clips"
            )
        x = video
        for name, stage in self.named_children():
            if name == "logits":
                break
            if name in POOLS:
                kernel, stride = POOLS[name]
                x = functional.max_pool3d(pad_same(x, kernel, stride), kernel, stride)
            x = stage(x)
        x = functional.avg_pool3d(x, (2, *x.shape[3:]), stride=1)
        return self.logits(x)[:, :, :, 0, 0].mean(dim=2)


class I3DFeatures:
    """The extractor `i3d`: uint8 frames to 400 logits, resized as the reference evaluator does."""

    name = "i3d"
    modality = "video"
    sample_rate = 0  # it takes no sound

    def __init__(self, weights_path: str | Path) -> None:
        self.network = I3D()
        self.weights_sha256 = load_weights(self.network, weights_path, "I3D (Kinetics-400, RGB)")

    def prepare(
        self, images: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 size size"]:
        """Return pictures as the reference evaluator gives them to the network, in [-1, 1]."""
        return reference_video_input(images[None])[0].movedim(1, 0)

    @torch.no_grad()
    def __call__(
        self, frames: Num[Tensor, "batch frame 3 height width"]
    ) -> Float[Tensor, "batch dim"]:
        """Compute features of RGB frames, uint8 or from `prepare`; a clip's row depends on that
        clip alone."""
        if frames.dtype == torch.uint8:
            return self.network(reference_video_input(frames))
        return self.network(frames.movedim(2, 1))
