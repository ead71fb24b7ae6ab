"""HiFi-GAN generator: from a log mel spectrogram to a waveform.

The module names are those of the published checkpoints, so that their state dictionaries load as
they are once weight norm is folded.

Source: Kong, Kim and Bae 2020, "HiFi-GAN", section 2.2 and appendix A (configuration V1).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError

LEAKY_SLOPE = 0.1
# The published network uses PyTorch's default slope before its last convolution only.
LAST_LEAKY_SLOPE = 0.01


@dataclass(frozen=True, kw_only=True)
class VocoderConfig:
    """Sizes of the generator; the defaults are configuration V1 for 80 mel bands and hop 256.

    Attributes:
        width: channels before the first upsampling; every upsampling halves them.
        upsample_rates: their product is the hop length of the spectrogram in samples.
        sample_rate: of the sound it was trained on, in Hz, for which the mel bands are computed.
        fft_size, min_hz, max_hz: of the spectrograms it was trained on.
    """

    num_mels: int = 80
    width: int = 512
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 4, 4)
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[int, ...] = (1, 3, 5)
    sample_rate: int = 22_050
    fft_size: int = 1024
    min_hz: float = 0.0
    max_hz: float = 8000.0

    def __post_init__(self) -> None:
        if len(self.upsample_rates) != len(self.upsample_kernel_sizes):
            raise SoundreelError(
                f"upsample_rates and upsample_kernel_sizes must be equally long, got "
                f"{self.upsample_rates} and {self.upsample_kernel_sizes}"
            )
        if self.width % 2 ** len(self.upsample_rates):
            raise SoundreelError(
                f"width must be a multiple of {2 ** len(self.upsample_rates)}, got {self.width}"
            )

    @property
    def hop_length(self) -> int:
        """Return samples per spectrogram column."""
        hop = 1
        for rate in self.upsample_rates:
            hop *= rate
        return hop


class ResidualStack(nn.Module):
    """Pairs of dilated and plain convolutions of one kernel size, each pair a residual."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding="same", dilation=dilation)
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel_size, padding="same") for _ in dilations
        )

    def forward(
        self, x: Float[Tensor, "batch channel time"]
    ) -> Float[Tensor, "batch channel time"]:
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            h = dilated(functional.leaky_relu(x, LEAKY_SLOPE))
            x = x + plain(functional.leaky_relu(h, LEAKY_SLOPE))
        return x


class Vocoder(nn.Module):
    """Log mel spectrogram in, waveform out, `hop_length` samples per column."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv_pre = nn.Conv1d(config.num_mels, config.width, 7, padding=3)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        channels = config.width
        for rate, kernel_size in zip(
            config.upsample_rates, config.upsample_kernel_sizes, strict=True
        ):
            self.ups.append(
                nn.ConvTranspose1d(
                    channels, channels // 2, kernel_size, rate, padding=(kernel_size - rate) // 2
                )
            )
            channels //= 2
            for kernel_size in config.resblock_kernel_sizes:
                self.resblocks.append(
                    ResidualStack(channels, kernel_size, config.resblock_dilations)
                )
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3)

    def forward(self, log_mel: Float[Tensor, "batch mel time"]) -> Float[Tensor, "batch 1 sample"]:
        """Synthesise a waveform in [-1, 1] from natural-log mel magnitudes."""
        x = self.conv_pre(log_mel)
        parallel = len(self.config.resblock_kernel_sizes)
        for i, up in enumerate(self.ups):
            x = up(functional.leaky_relu(x, LEAKY_SLOPE))
            stacks = self.resblocks[i * parallel : (i + 1) * parallel]
            x = torch.stack([stack(x) for stack in stacks]).mean(dim=0)
        return torch.tanh(self.conv_post(functional.leaky_relu(x, LAST_LEAKY_SLOPE)))


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a published checkpoint as plain tensors: w = g * v / |v| for every `g,
    v` pair.

    Accepts both spellings of weight norm (`weight_g`, `weight_v` and PyTorch's
    `parametrizations.weight.original0`, `original1`); entries without a pair pass unchanged.
    """
    state = {
        key.replace(".parametrizations.weight.original0", ".weight_g").replace(
            ".parametrizations.weight.original1", ".weight_v"
        ): value.float()
        for key, value in state.items()
    }
    folded = {}
    for key, value in state.items():
        if key.endswith(".weight_v"):
            stem = key.removesuffix("_v")
            norm = value.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            folded[stem] = state[f"{stem}_g"] * value / norm
        elif not key.endswith(".weight_g"):
            folded[key] = value
    return folded


def vocoder_from_state(state: Mapping[str, Tensor], config: VocoderConfig | None = None) -> Vocoder:
    """Return a vocoder in evaluation mode with the weights of a published or converted checkpoint.

    Args:
        state: the generator's state dictionary, with or without weight norm.
        config: V1 if it is not given.

    Raises:
        SoundreelError: the weights do not fit the configuration.
    """
    network = Vocoder(VocoderConfig() if config is None else config)
    try:
        network.load_state_dict(fold_weight_norm(state))
    except RuntimeError as error:
        first_lines = " ".join(str(error).split())[:300]
        raise SoundreelError(
            f"these weights are not a HiFi-GAN generator of {network.config}: {first_lines}"
        ) from None
    return network.eval()
