"""Short-time Fourier magnitudes with the frame layout of neural vocoders.

A waveform of `hop_length * time` samples has `time` columns: column k is centred on the samples of
hop k, because the ends are padded by (fft_size - hop_length) / 2 reflected samples.
"""

from functools import cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.nn import functional

from soundreel.errors import SoundreelError


@cache
@torch.inference_mode(mode=False)  # what is kept must also serve training
def hann_window(size: int) -> Float[Tensor, " sample"]:
    """Return a periodic Hann window."""
    return torch.hann_window(size, device="cpu")


def stft(
    waveform: Float[Tensor, "batch sample"], *, fft_size: int = 1024, hop_length: int = 256
) -> Complex[Tensor, "batch frequency time"]:
    """Return the short-time spectrum, windows of `fft_size` samples, one column per hop.

    Raises:
        SoundreelError: fewer samples than the reflected padding needs.
    """
    pad = (fft_size - hop_length) // 2
    if waveform.shape[-1] <= pad:
        raise SoundreelError(
            f"{waveform.shape[-1]} samples are too few for a spectrum of {fft_size}; "
            f"give more than {pad}, or pad with silence"
        )
    padded = functional.pad(waveform[:, None], (pad, pad), mode="reflect")[:, 0]
    return torch.stft(
        padded,
        fft_size,
        hop_length,
        window=hann_window(fft_size).to(waveform),
        center=False,
        return_complex=True,
    )


def stft_magnitude(
    waveform: Float[Tensor, "batch sample"],
    *,
    fft_size: int = 1024,
    hop_length: int = 256,
    epsilon: float = 1e-9,
) -> Float[Tensor, "batch frequency time"]:
    """Return sqrt(re^2 + im^2 + epsilon) of the short-time spectrum.

    Args:
        epsilon: keeps the gradient finite in silence; 1e-9 is HiFi-GAN's.
    """
    parts = torch.view_as_real(stft(waveform, fft_size=fft_size, hop_length=hop_length))
    return (parts.square().sum(dim=-1) + epsilon).sqrt()
