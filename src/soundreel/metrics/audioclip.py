"""The audio tower of AudioCLIP, the network of MM-Diffusion's audio distance (Guzhov et al. 2021).

Mono sound at 44.1 kHz is framed, transformed by learnable frequency B-spline wavelets, split into
three bands that become image channels, and read by a ResNeXt-50 (32x4d) with five attention gates.
Parameter names are those of the official checkpoint's `audio.` part.
"""

import math
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.metrics.weights import load_weights

Image = Float[Tensor, "batch _channel _height _width"]

SAMPLE_RATE = 44_100
FRAME_LENGTH = 1654
HOP_LENGTH = 561
TRANSFORM_LENGTH = 2048
NUM_BINS = TRANSFORM_LENGTH // 2 + 1
NUM_BANDS = 3
OTHER_TOWERS = (
    "visual.",
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "logit_scale",
    "input_resolution",
    "context_length",
    "vocab_size",
)
"""Other parts of a whole AudioCLIP: CLIP's picture and text towers, and the three scales."""


class SplineTransform(nn.Module):
    """Linear transform with frequency B-spline wavelets: order m, bandwidth fb, centre fc per bin.

    Source:
        Guzhov et al. 2021 (ESResNe(X)t-fbsp), section 3.
    """

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(num_bins))
        self.fb = nn.Parameter(torch.ones(num_bins))
        self.fc = nn.Parameter(torch.arange(num_bins, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(0))  # the official tower has none, but stores it

    def wavelets(self, length: int) -> tuple[Float[Tensor, "bin time"], Float[Tensor, "bin time"]]:
        """Return real and imaginary parts, scaled by 1 / sqrt(length)."""
        tiny = 1e-8
        time = math.pi * _even_grid(length).to(self.m.device) + tiny
        order, bandwidth, centre = self.m[:, None], self.fb[:, None], self.fc[:, None]
        argument = bandwidth * time / (order + tiny)
        sinc = torch.where(argument == 0, torch.ones_like(argument), argument.sin() / argument)
        # sinc^order of a real number that may be negative: modulus^order at angle order * pi or 0.
        modulus = sinc.square() ** (order / 2)
        angle = order * torch.atan2(torch.zeros_like(sinc), sinc)
        spline_real, spline_imaginary = modulus * angle.cos(), modulus * angle.sin()
        # Not cos(angle - fc t): fc t reaches 3217 rad, where single precision rounds at 1e-4, and
        # the rounding must be that of the network the weights belong to.
        wave_real, wave_imaginary = (centre * time).cos(), -(centre * time).sin()
        scale = bandwidth.sqrt()
        real = scale * (spline_real * wave_real - spline_imaginary * wave_imaginary)
        imaginary = scale * (spline_real * wave_imaginary + spline_imaginary * wave_real)
        return real / length**0.5, imaginary / length**0.5

    def forward(
        self, frames: Float[Tensor, "batch frame length"]
    ) -> Float[Tensor, "batch bin frame"]:
        """Compute the power of every bin in every frame."""
        real, imaginary = self.wavelets(frames.shape[-1])
        power = (
            functional.linear(frames, real).square() + functional.linear(frames, imaginary).square()
        )
        return power.mT


class Bottleneck(nn.Module):
    """ResNeXt residual block: 1x1, grouped 3x3, 1x1."""

    def __init__(self, in_channels: int, width: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=32, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if in_channels != out_channels or stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Image) -> Image:
        h = functional.relu(self.bn1(self.conv1(x)))
        h = functional.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        return functional.relu(h + (x if self.downsample is None else self.downsample(x)))


class Gate(nn.Module):
    """Sigmoid gate computed from the input of a stage, applied to its output."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(
            in_channels, in_channels, kernel, padding=padding, groups=in_channels
        )
        self.conv_point = nn.Conv2d(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Image, output: Image) -> Image:
        pooled = functional.adaptive_max_pool2d(x, output.shape[-2:])
        return output * torch.sigmoid(self.bn(self.conv_point(self.conv_depth(pooled))))


class AudioCLIPAudio(nn.Module):
    """Waveform at 44.1 kHz to 1024 features (not normalised).

    Batch norm follows the module's mode; the published evaluation runs it in training mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", _blackman_harris(FRAME_LENGTH))
        self.fbsp = SplineTransform(NUM_BINS)
        self.conv1 = nn.Conv2d(NUM_BANDS, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        gates = [(3, 1), (1, 5), (3, 1), (1, 5)]
        for k, (depth, kernel) in enumerate(zip((3, 4, 6, 3), gates, strict=True), start=1):
            out_channels = 128 * 2**k
            blocks = [
                Bottleneck(
                    channels if i == 0 else out_channels,
                    64 * 2**k,
                    out_channels,
                    stride=2 if i == 0 and k > 1 else 1,
                )
                for i in range(depth)
            ]
            self.add_module(f"layer{k}", nn.Sequential(*blocks))
            self.add_module(f"att{k}", Gate(channels, out_channels, kernel))
            channels = out_channels
        self.att5 = Gate(channels, channels, (3, 5))
        self.fc = nn.Linear(channels, 1024)

    def log_power(
        self, waveform: Float[Tensor, "batch sample"], reference_scaling: bool
    ) -> Float[Tensor, "batch band bin time"]:
        """Compute the decibels of the three bands.

        Args:
            reference_scaling: map the range of 16-bit integers onto [-1, 1], which is what the
                tower was trained with. The published evaluation does so although its sound is
                already in [-1, 1].
        """
        if reference_scaling:
            waveform = (waveform + 32768.0) * 2 / 65535.0 - 1
        power = self.fbsp(self._frames(waveform))
        power = rearrange(
            power[:, : NUM_BINS // NUM_BANDS * NUM_BANDS],
            "b (band k) t -> b band k t",
            band=NUM_BANDS,
        )
        power = torch.where(power > 0, power, torch.full_like(power, 1e-18))
        return 10 * power.log10()

    def forward(
        self, waveform: Float[Tensor, "batch sample"], reference_scaling: bool
    ) -> Float[Tensor, "batch dim"]:
        x = self.log_power(waveform, reference_scaling)
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for k in range(1, 5):
            gate, stage = self.get_submodule(f"att{k}"), self.get_submodule(f"layer{k}")
            x = gate(x, stage(x))
        x = self.att5(x, functional.adaptive_avg_pool2d(x, 1))
        return self.fc(x[:, :, 0, 0])

    def _frames(self, waveform: Tensor) -> Tensor:
        """Cut windowed frames, in the middle of zero-padded blocks of the transform's length."""
        num_samples = waveform.shape[-1]
        count = 1 + max(0, math.ceil((num_samples - FRAME_LENGTH) / HOP_LENGTH))
        missing = max(0, (count - 1) * HOP_LENGTH + FRAME_LENGTH - num_samples)
        padded = functional.pad(waveform, (missing // 2, missing - missing // 2))
        frames = padded.unfold(-1, FRAME_LENGTH, HOP_LENGTH) * self.window
        extra = TRANSFORM_LENGTH - FRAME_LENGTH
        return functional.pad(frames, (extra // 2, extra - extra // 2))


class AudioCLIPFeatures:
    """The extractor `audioclip`: 44.1 kHz mono sound in [-1, 1] to 1024 features.

    Args:
        reference_quirks: reproduce the published evaluation, which feeds sound in [-1, 1] where the
            tower expects 16-bit integers and leaves batch norm in training mode, so that the
            features of a clip depend on the batch it is in. The name becomes
            `audioclip-reference-quirks`.
    """

    modality = "audio"
    sample_rate = SAMPLE_RATE

    def __init__(self, weights_path: str | Path, reference_quirks: bool = False) -> None:
        self.reference_quirks = reference_quirks
        self.name = "audioclip-reference-quirks" if reference_quirks else "audioclip"
        self.network = AudioCLIPAudio()
        self.weights_sha256 = load_weights(
            self.network,
            weights_path,
            "AudioCLIP's audio tower",
            prefix="audio.",
            ignored=OTHER_TOWERS,
        )
        self.network.train(reference_quirks)

    @torch.no_grad()
    def __call__(self, waveform: Float[Tensor, "batch sample"]) -> Float[Tensor, "batch dim"]:
        scale = 1.0 if self.reference_quirks else 32768.0
        return self.network(waveform * scale, reference_scaling=True)


def _even_grid(length: int) -> Float[Tensor, " time"]:
    """Return `torch.linspace(-1, 1, length)` as processors with fused multiply-add round it.

    Others round up to half of the points another way, which the wavelets' phases multiply by 3217.
    """
    step, index = torch.tensor(2 / (length - 1)).double(), torch.arange(length)
    from_end = 1 - step * (length - 1 - index)
    return torch.where(index < length // 2, step * index - 1, from_end).float()


def _blackman_harris(length: int) -> Float[Tensor, " length"]:
    """Return the periodic four-term Blackman-Harris window."""
    phase = 2 * math.pi * torch.arange(length, dtype=torch.float64) / length
    terms = (0.35875, -0.48829, 0.14128, -0.01168)
    return sum((a * torch.cos(k * phase) for k, a in enumerate(terms)), phase * 0).float()
