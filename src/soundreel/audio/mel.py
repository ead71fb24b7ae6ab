"""Mel filterbank in Slaney's form (the default of librosa) and the log mel of neural vocoders."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from soundreel.audio.stft import stft_magnitude
from soundreel.errors import SoundreelError

# Slaney's scale: linear with 3 mel per 200 Hz up to 1 kHz (15 mel), then 27 mel per factor 6.4.
MEL_PER_HZ = 3 / 200
KNEE_HZ = 1000.0
LOG_STEP = math.log(6.4) / 27


@dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Settings of a log mel spectrogram; the defaults are those of HiFi-GAN.

    Attributes:
        filterbank_sample_rate: rate in Hz for which the band edges are computed. It need not be the
            rate of the sound: at another rate all edges scale with it.
        floor: smallest mel magnitude; its logarithm is the value of silence.
    """

    filterbank_sample_rate: int = 22_050
    fft_size: int = 1024
    hop_length: int = 256
    num_mels: int = 80
    min_hz: float = 0.0
    max_hz: float = 8000.0
    floor: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.min_hz < self.max_hz <= self.filterbank_sample_rate / 2:
            raise SoundreelError(
                f"mel bands need 0 <= min_hz < max_hz <= {self.filterbank_sample_rate / 2:g} "
                f"(half of filterbank_sample_rate), got {self.min_hz:g} and {self.max_hz:g}"
            )
        if not 0 < self.hop_length <= self.fft_size or (self.fft_size - self.hop_length) % 2:
            raise SoundreelError(
                f"hop_length must be at most fft_size and differ from it by an even number, got "
                f"{self.hop_length} and {self.fft_size}"
            )
        if self.num_mels <= 0 or self.floor <= 0:
            raise SoundreelError(
                f"num_mels and floor must be positive, got {self.num_mels} and {self.floor}"
            )


def hz_to_mel(hz: Float64[Tensor, " band"]) -> Float64[Tensor, " band"]:
    """Convert to Slaney's mel scale."""
    above = KNEE_HZ * MEL_PER_HZ + (hz.clamp(min=KNEE_HZ) / KNEE_HZ).log() / LOG_STEP
    return torch.where(hz >= KNEE_HZ, above, hz * MEL_PER_HZ)


def mel_to_hz(mel: Float64[Tensor, " band"]) -> Float64[Tensor, " band"]:
    """Return the inverse of `hz_to_mel`."""
    above = KNEE_HZ * (LOG_STEP * (mel - KNEE_HZ * MEL_PER_HZ)).exp()
    return torch.where(mel >= KNEE_HZ * MEL_PER_HZ, above, mel / MEL_PER_HZ)


@cache
@torch.inference_mode(mode=False)  # what is kept must also serve training
def mel_filterbank(config: MelConfig) -> Float[Tensor, "mel frequency"]:
    """Return triangles between equally spaced mels, each of unit area in Hz, as float32."""
    on_cpu = {"dtype": torch.float64, "device": "cpu"}
    low, high = hz_to_mel(torch.tensor([config.min_hz, config.max_hz], **on_cpu)).tolist()
    centre = mel_to_hz(torch.linspace(low, high, config.num_mels + 2, **on_cpu))
    bin_hz = config.filterbank_sample_rate / config.fft_size
    frequency = torch.arange(config.fft_size // 2 + 1, **on_cpu) * bin_hz
    rising = (frequency - centre[:-2, None]) / (centre[1:-1] - centre[:-2])[:, None]
    falling = (centre[2:, None] - frequency) / (centre[2:] - centre[1:-1])[:, None]
    triangle = torch.minimum(rising, falling).clamp(min=0).float()  # librosa rounds here too
    area = 2.0 / (centre[2:] - centre[:-2])
    return (triangle * area[:, None]).float()


def log_mel(
    waveform: Float[Tensor, "batch sample"], config: MelConfig
) -> Float[Tensor, "batch mel time"]:
    """Return ln(max(mel magnitude, floor)) of a waveform in [-1, 1]; one column per hop.

    Source:
        Kong, Kim and Bae 2020 (HiFi-GAN), the spectrogram of its first release.
    """
    magnitude = stft_magnitude(waveform, fft_size=config.fft_size, hop_length=config.hop_length)
    return (mel_filterbank(config).to(magnitude) @ magnitude).clamp(min=config.floor).log()
