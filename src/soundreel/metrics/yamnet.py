"""YAMNet (AudioSet), the audio features of the stand-in metric `fad/yamnet`.

A MobileNet over log-mel patches of 0.96 s at 16 kHz; batch norms are folded into the weights of the
file. A clip's features are the mean over its patches. Source: the TensorFlow model garden,
research/audioset/yamnet.
"""

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.metrics.padding import pad_same
from soundreel.metrics.weights import load_weights

Image = Float[Tensor, "batch _channel _time _mel"]

SAMPLE_RATE = 16_000
WINDOW_LENGTH = 400
HOP_LENGTH = 160
TRANSFORM_LENGTH = 512
NUM_MELS = 64
PATCH_FRAMES = 96
PATCH_HOP = 48
LOG_OFFSET = 0.001
MIN_SAMPLES = WINDOW_LENGTH + (PATCH_FRAMES - 1) * HOP_LENGTH  # 0.975 s

CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class _Layer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Image) -> Image:
        x = functional.relu(self.depthwise(pad_same(x, (3, 3), self.depthwise.stride)))
        return functional.relu(self.pointwise(x))


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3, stride=2)

    def forward(self, x: Image) -> Image:
        return functional.relu(self.conv(pad_same(x, (3, 3), (2, 2))))


class YAMNet(nn.Module):
    """Sound at 16 kHz in [-1, 1] to embeddings (1024) and AudioSet scores (521) of its patches.

    Args:
        has_classifier: without it there are embeddings only.
    """

    def __init__(self, has_classifier: bool = True) -> None:
        super().__init__()
        mel = nn.Linear(TRANSFORM_LENGTH // 2 + 1, NUM_MELS, bias=False)
        self.frontend = nn.ModuleDict({"mel": mel})
        self.layer1 = _Stem()
        channels = 32
        for k, (width, stride) in enumerate(zip(CHANNELS, STRIDES, strict=True), start=2):
            self.add_module(f"layer{k}", _Layer(channels, width, stride))
            channels = width
        self.classifier = nn.Linear(channels, 521) if has_classifier else None

    def log_mel(self, waveform: Float[Tensor, "batch sample"]) -> Float[Tensor, "batch time mel"]:
        """Compute ln(mel magnitude + 0.001), 100 columns a second, no padding at the ends."""
        window = torch.hann_window(WINDOW_LENGTH, device=waveform.device)
        frames = waveform.unfold(-1, WINDOW_LENGTH, HOP_LENGTH) * window
        magnitude = torch.fft.rfft(frames, TRANSFORM_LENGTH).abs()
        return (self.frontend["mel"](magnitude) + LOG_OFFSET).log()

    def embeddings(
        self, waveform: Float[Tensor, "batch sample"]
    ) -> Float[Tensor, "batch patch dim"]:
        """Compute the embedding of every patch of 0.96 s, one each 0.48 s."""
        if waveform.shape[-1] < MIN_SAMPLES:
            raise SoundreelError(
                f"YAMNet needs {MIN_SAMPLES} samples ({MIN_SAMPLES / SAMPLE_RATE} s at 16 kHz), "
                f"got {waveform.shape[-1]}: use longer clips"
            )
        patches = self.log_mel(waveform).unfold(1, PATCH_FRAMES, PATCH_HOP)
        x = rearrange(patches, "b patch mel time -> (b patch) 1 time mel")
        for k in range(1, 15):
            x = self.get_submodule(f"layer{k}")(x)
        return rearrange(x.mean(dim=(2, 3)), "(b patch) dim -> b patch dim", b=len(waveform))

    def scores(
        self, embeddings: Float[Tensor, "batch patch dim"]
    ) -> Float[Tensor, "batch patch label"]:
        """Compute the probability of each of the 521 AudioSet classes."""
        if self.classifier is None:
            raise ValueError("this YAMNet was built without its classifier")
        return torch.sigmoid(self.classifier(embeddings))


class YAMNetFeatures:
    """The extractor `yamnet`: sound at 16 kHz to 1024 features, averaged over the clip."""

    name = "yamnet"
    modality = "audio"
    sample_rate = SAMPLE_RATE

    def __init__(self, weights_path: str | Path) -> None:
        self.network = YAMNet(has_classifier=False)
        self.weights_sha256 = load_weights(
            self.network, weights_path, "YAMNet", ignored=("classifier.",)
        )

    @torch.no_grad()
    def __call__(self, waveform: Float[Tensor, "batch sample"]) -> Float[Tensor, "batch dim"]:
        return self.network.embeddings(waveform).mean(dim=1)
