"""From a log mel spectrogram to a waveform without any weights.

Two steps: the linear-frequency magnitudes whose mel bands fit best, none of them negative; then a
waveform with those magnitudes, by Griffin and Lim's alternation.
"""

import math
from functools import cache

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional

from soundreel.audio.mel import MelConfig, mel_filterbank
from soundreel.audio.stft import hann_window, stft


def mel_to_magnitude(
    log_mel: Float[Tensor, "batch mel time"], config: MelConfig, *, num_iterations: int = 100
) -> Float[Tensor, "batch frequency time"]:
    """Return the magnitudes m >= 0 with the smallest |F m - exp(log_mel)| (least squares).

    A pseudo-inverse would give negative magnitudes between the bands. Solved by accelerated
    projected gradient, which starts from every band's energy spread over its triangle.

    Source:
        Beck and Teboulle 2009, "A fast iterative shrinkage-thresholding algorithm", section 4.
    """
    filterbank = mel_filterbank(config).to(log_mel)
    target = log_mel.exp()
    step = 1.0 / torch.linalg.matrix_norm(filterbank, ord=2) ** 2
    spread = filterbank.T @ (target / filterbank.sum(dim=1)[:, None])
    magnitude = spread / filterbank.sum(dim=0).clamp(min=1e-8)[:, None]
    ahead, momentum = magnitude, 1.0
    for _ in range(num_iterations):
        residual = filterbank @ ahead - target
        following = (ahead - step * (filterbank.T @ residual)).clamp(min=0)
        next_momentum = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = following + (momentum - 1) / next_momentum * (following - magnitude)
        magnitude, momentum = following, next_momentum
    return magnitude


@cache
@torch.inference_mode(mode=False)  # what is kept must also serve training
def _window_energy(fft_size: int, hop_length: int, num_columns: int) -> Float[Tensor, "1 sample"]:
    """Sum of the squared windows over every sample, padding included."""
    window = hann_window(fft_size).square()
    columns = window[None, :, None].expand(1, fft_size, num_columns)
    return _overlap_add(columns, hop_length)


def _overlap_add(
    columns: Float[Tensor, "batch sample time"], hop_length: int
) -> Float[Tensor, "batch long_sample"]:
    fft_size, num_columns = columns.shape[1:]
    length = fft_size + hop_length * (num_columns - 1)
    folded = functional.fold(columns, (1, length), (1, fft_size), stride=(1, hop_length))
    return rearrange(folded, "batch 1 1 sample -> batch sample")


def inverse_stft(
    spectrum: Complex[Tensor, "batch frequency time"], *, hop_length: int
) -> Float[Tensor, "batch sample"]:
    """Return the waveform with the nearest short-time spectrum; `hop_length * time` samples.

    Source:
        Griffin and Lim 1984, equation 6; the frame layout is that of `stft`.
    """
    fft_size = 2 * (spectrum.shape[1] - 1)
    columns = torch.fft.irfft(spectrum, n=fft_size, dim=1)
    columns = columns * hann_window(fft_size).to(columns)[:, None]
    energy = _window_energy(fft_size, hop_length, spectrum.shape[2]).to(columns)
    waveform = _overlap_add(columns, hop_length)
    pad = (fft_size - hop_length) // 2
    # The first and last samples lie under the windows' zeros, but they are padding.
    return (waveform / energy.clamp(min=1e-8))[:, pad : waveform.shape[1] - pad]


def griffin_lim(
    magnitude: Float[Tensor, "batch frequency time"],
    *,
    hop_length: int,
    num_iterations: int = 60,
    momentum: float = 0.99,
    seed: int = 0,
) -> Float[Tensor, "batch sample"]:
    """Return a waveform with (nearly) the given short-time magnitudes.

    Args:
        momentum: 0 for the original method; 0.99 comes closer in as many rounds.
        seed: of the phases to begin with, the same for every row of the batch.

    Source:
        Griffin and Lim 1984; with momentum Perraudin, Balazs and Sondergaard 2013.
    """
    fft_size = 2 * (magnitude.shape[1] - 1)
    generator = torch.Generator().manual_seed(seed)
    phase = 2 * math.pi * torch.rand(magnitude.shape[1:], generator=generator)
    estimate = magnitude * torch.exp(1j * phase).to(magnitude.device)
    previous = torch.zeros_like(estimate)
    for _ in range(num_iterations):
        waveform = inverse_stft(estimate, hop_length=hop_length)
        consistent = stft(waveform, fft_size=fft_size, hop_length=hop_length)
        ahead = consistent + momentum * (consistent - previous)
        estimate = magnitude * ahead / ahead.abs().clamp(min=1e-12)
        previous = consistent
    return inverse_stft(estimate, hop_length=hop_length)


def log_mel_to_waveform(
    log_mel: Float[Tensor, "batch mel time"], config: MelConfig, *, num_iterations: int = 60
) -> Float[Tensor, "batch sample"]:
    """Return a waveform in [-1, 1] with a given log mel; `hop_length * time` samples."""
    waveform = griffin_lim(
        mel_to_magnitude(log_mel, config),
        hop_length=config.hop_length,
        num_iterations=num_iterations,
    )
    return waveform.clamp(-1, 1)
