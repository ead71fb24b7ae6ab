"""Training the audio codec by the spectral energy distance: no adversary, and noise stays noise."""

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.audio.mel import MelConfig, mel_filterbank
from soundreel.audio.stft import stft_magnitude
from soundreel.device import send
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.training.objectives import Objective, TrainingBatch, TrainingLoss
from soundreel.training.parallel import unwrapped

JOINT_BANDS = 4
"""Bands whose log magnitudes are compared jointly.

One norm over all bands sees little but their means and the sum of their variances: noise where a
tone should be makes up for a tone where noise should be.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioLossConfig:
    """Settings of the audio codec's loss.

    Attributes:
        windows: lengths in samples of the spectra that are compared.
        num_mels: bands of each; fewer in short windows.
        repulsion: weight of the distance between two decodings of one latent; below 1 a perfect
            decoder still gains by coming near the sound itself.
        latent_noise: deviation of the noise on the latents that the decoder learns from.
        latent_weight: of the penalty that keeps latents at mean 0 and variance 1.
        ripple_weight: of the difference between decoding and sound in how loudness changes at the
            rate of the columns and at twice that rate, where an inverse STFT leaves a trace.
        gain_db: range of the random gain of each clip.
    """

    windows: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    num_mels: int = 80
    repulsion: float = 0.95
    latent_noise: float = 0.1
    latent_weight: float = 0.05
    ripple_weight: float = 100.0
    gain_db: tuple[float, float] = (-12.0, 3.0)


def audio_codec_objective(config: AudioLossConfig) -> Objective:
    """Return the loss of `AudioCodec` on the sound of a batch, mixed down to one channel."""

    def objective(network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise) -> TrainingLoss:
        codec = cast(AudioCodec, unwrapped(network))
        sound = batch.av["audio"].mean(1)
        draws = [_draws(codec, config, sound.shape[-1], g) for g in noise.generators]
        gain, latent_noise, first, second = (
            send(torch.stack(rows), sound.device) for rows in zip(*draws, strict=True)
        )
        sound = (sound * gain[:, None]).clamp(-1, 1)
        latents, decoded = network(sound, config.latent_noise * latent_noise, (first, second))
        spread = latent_spread(latents.float())
        features = [
            spectral_features(wave, config, codec.config.sample_rate) for wave in (sound, *decoded)
        ]
        near = spectral_distance(features[0], features[1])
        also = spectral_distance(features[0], features[2])
        apart = spectral_distance(features[1], features[2])
        true, one, other = (
            column_ripple(wave, codec.config.hop_length) for wave in (sound, *decoded)
        )
        # A product of two decodings: what their noises happen to do averages out.
        ripple = ((one - true) * (other - true).conj()).real.mean()
        loss = near + also - config.repulsion * apart
        loss = loss + config.latent_weight * spread + config.ripple_weight * ripple
        count = len(sound)
        means = {
            "distance": ((near + also).detach() / 2, count),
            "between_decodings": (apart.detach(), count),
            "latent_spread": (spread.detach(), count),
            "ripple": (ripple.detach(), count),
        }
        return TrainingLoss(loss, means)

    return objective


def latent_spread(latents: Float[Tensor, "batch latent dim"]) -> Float[Tensor, ""]:
    """Return the squared distance of each channel's mean from 0 and mean square from 1."""
    mean = latents.mean((0, 1)).square().mean()
    return mean + (latents.square().mean((0, 1)) - 1).square().mean()


def column_ripple(
    waveform: Float[Tensor, "batch sample"], hop_length: int
) -> Complex[Tensor, "batch harmonic"]:
    """Return how the power changes at the rate of the hops and at twice that rate.

    Power is counted relative to its mean over two hops, so that quiet parts count as loud ones; a
    power of 1 + m cos at the rate of the hops gives m / 2.
    """
    power = waveform.square() + 1e-8
    padded = functional.pad(power.double(), (hop_length + 1, hop_length - 1))
    sums = padded.cumsum(-1)  # differences of them are moving sums
    local = (sums[:, 2 * hop_length :] - sums[:, : -2 * hop_length]) / (2 * hop_length)
    relative = power / local.to(power)
    turn = torch.arange(relative.shape[-1], device=waveform.device) / hop_length
    angle = 2 * math.pi * torch.stack([turn, 2 * turn], dim=-1)
    wheel = torch.polar(torch.ones_like(angle), -angle)
    return relative.to(wheel.dtype) @ wheel / relative.shape[-1]


def spectral_features(
    waveform: Float[Tensor, "batch sample"], config: AudioLossConfig, sample_rate: int
) -> list[Float[Tensor, "batch mel column"]]:
    """Return mel magnitudes at every window length, a quarter of the window apart."""
    features = []
    for size in config.windows:
        mel = MelConfig(
            filterbank_sample_rate=sample_rate,
            fft_size=size,
            hop_length=size // 4,
            num_mels=min(config.num_mels, size // 4),
            min_hz=30.0,
            max_hz=sample_rate / 2,
        )
        with torch.autocast(waveform.device.type, enabled=False):
            magnitude = stft_magnitude(waveform, fft_size=size, hop_length=size // 4)
            bank = send(mel_filterbank(mel), magnitude.device)
            features.append(bank @ magnitude * (sample_rate / size))
    return features


def spectral_distance(a: list[Tensor], b: list[Tensor]) -> Float[Tensor, ""]:
    """Return the distance of magnitudes and of log magnitudes, averaged over the window lengths.

    Log magnitudes are compared as they are and in how they change from column to column: the latter
    tells a partial that flickers from a steady one whose loudness the latents leave open.

    Source:
        Gritsenko et al. 2020, equation 8.
    """
    total = a[0].new_zeros(())
    for one, other in zip(a, b, strict=True):
        difference = (one + 1e-3).log() - (other + 1e-3).log()
        logs = _mean_norm(difference) + _mean_norm(difference.diff(dim=2))
        total = total + 2 * (one - other).abs().mean() + logs
    return total / len(a)


def _mean_norm(difference: Float[Tensor, "batch band column"]) -> Float[Tensor, ""]:
    """Return the mean over columns and over groups of bands of the root mean square in a group.

    An incomplete group is filled up with zeros.
    """
    padded = functional.pad(difference, (0, 0, 0, -difference.shape[1] % JOINT_BANDS))
    square = padded.unflatten(1, (-1, JOINT_BANDS)).square().mean(2)
    return (square + 1e-6).sqrt().mean()


def _draws(
    codec: AudioCodec, config: AudioLossConfig, num_samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gain, the latents' noise and the decoder's two noises of one clip."""
    num_latents = num_samples // codec.config.samples_per_latent
    low, high = config.gain_db
    gain_db = low + (high - low) * torch.rand((), generator=generator)
    shape = codec.noise_shape(num_latents)
    return (
        10 ** (gain_db / 20),
        torch.randn(num_latents, codec.config.latent_dim, generator=generator),
        torch.randn(shape, generator=generator),
        torch.randn(shape, generator=generator),
    )
