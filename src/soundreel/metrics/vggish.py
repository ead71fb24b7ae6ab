"""VGGish (AudioSet), the network of the usual Frechet audio distance (Kilgour et al. 2019).

Log-mel examples of 0.96 s at 16 kHz, without overlap, to 128 features each. Parameter names are
those of the widespread PyTorch port. The distance is taken over examples, not over clips.
"""

import math
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from soundreel.errors import SoundreelError
from soundreel.metrics.weights import load_weights

SAMPLE_RATE = 16_000
WINDOW_LENGTH = 400
HOP_LENGTH = 160
TRANSFORM_LENGTH = 512
NUM_MELS = 64
MIN_HZ, MAX_HZ = 125.0, 7500.0
EXAMPLE_FRAMES = 96
LOG_OFFSET = 0.01
QUANTISATION = ("pproc.",)  # some copies of the port's file hold the whitening, which is not used
MIN_SAMPLES = WINDOW_LENGTH + (EXAMPLE_FRAMES - 1) * HOP_LENGTH  # 0.975 s


class VGGish(nn.Module):
    """Log-mel examples to 128 features, without the later quantisation and whitening.

    Args:
        has_final_relu: the published distance uses the last layer after its ReLU; some evaluators
            leave it out. Figures of the two are not comparable.
    """

    def __init__(self, has_final_relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0):
            if width == 0:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        head = [nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
        head.append(nn.Linear(4096, 128))
        self.embeddings = nn.Sequential(*head, *([nn.ReLU()] if has_final_relu else []))

    def forward(self, examples: Float[Tensor, "example 96 64"]) -> Float[Tensor, "example 128"]:
        x = self.features(examples[:, None])
        return self.embeddings(rearrange(x, "b c time mel -> b (time mel c)"))


def mel_matrix() -> Float[Tensor, "bin mel"]:
    """Return triangles linear in mel = 1127 ln(1 + f / 700), peak 1, the zero bin left out."""

    def mel(hz: Tensor) -> Tensor:
        return 1127 * torch.log1p(hz / 700)

    bins = mel(torch.linspace(0, SAMPLE_RATE / 2, TRANSFORM_LENGTH // 2 + 1, dtype=torch.float64))
    ends = mel(torch.tensor([MIN_HZ, MAX_HZ], dtype=torch.float64))
    edges = torch.linspace(float(ends[0]), float(ends[1]), NUM_MELS + 2, dtype=torch.float64)
    width = edges[1] - edges[0]
    matrix = (1 - (bins[:, None] - edges[1:-1]).abs() / width).clamp(min=0)
    matrix[0] = 0
    return matrix.float()


def log_mel_examples(
    waveform: Float[Tensor, "batch sample"],
) -> Float[Tensor, "batch example 96 64"]:
    """Compute ln(mel magnitude + 0.01) of successive stretches of 0.96 s.

    What is left at the end is dropped.

    Raises:
        SoundreelError: less than one stretch of sound.
    """
    if waveform.shape[-1] < MIN_SAMPLES:
        raise SoundreelError(
            f"VGGish needs {MIN_SAMPLES} samples ({MIN_SAMPLES / SAMPLE_RATE} s at 16 kHz), "
            f"got {waveform.shape[-1]}: use longer clips"
        )
    phase = 2 * math.pi * torch.arange(WINDOW_LENGTH, device=waveform.device) / WINDOW_LENGTH
    frames = waveform.unfold(-1, WINDOW_LENGTH, HOP_LENGTH) * (0.5 - 0.5 * phase.cos())
    mel = torch.fft.rfft(frames, TRANSFORM_LENGTH).abs() @ mel_matrix().to(waveform.device)
    examples = (mel + LOG_OFFSET).log().unfold(1, EXAMPLE_FRAMES, EXAMPLE_FRAMES)
    return rearrange(examples, "b example mel time -> b example time mel")


class VGGishFeatures:
    """The extractor `vggish`: sound at 16 kHz to one row of 128 features for each 0.96 s."""

    name = "vggish"
    modality = "audio"
    sample_rate = SAMPLE_RATE

    def __init__(self, weights_path: str | Path) -> None:
        self.network = VGGish()
        self.weights_sha256 = load_weights(
            self.network, weights_path, "VGGish", ignored=QUANTISATION
        )

    @torch.no_grad()
    def __call__(self, waveform: Float[Tensor, "batch sample"]) -> Float[Tensor, "example 128"]:
        return self.network(rearrange(log_mel_examples(waveform), "b e t m -> (b e) t m"))
