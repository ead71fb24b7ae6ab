"""Audio codec: a log-mel encoder, and a decoder that draws noise and ends in an inverse STFT.

One latent covers one video frame. In a single pass the decoder turns latents into magnitudes and
phases, into the gains of white noise, and into an envelope: rain or fire is answered with noise of
the right colour, not with an average, and a stroke rises faster than the window around it.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.audio.mel import MelConfig, mel_filterbank
from soundreel.audio.stft import hann_window, stft, stft_magnitude
from soundreel.nn.linear import Linear

GATE = 0.01
"""Magnitude below which a bin is exactly silent: about -88 dB below full scale."""

ENVELOPE_STEPS = 10
"""Loudnesses a column; the window of a spectrum blurs what is shorter than it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioCodecConfig:
    """Sizes of the audio codec.

    Attributes:
        sample_rate: in Hz.
        samples_per_latent: samples that one latent covers.
        hop_length: samples between columns of the spectra; divides `samples_per_latent`.
        fft_size: window of the spectra in samples; a multiple of twice the hop.
        num_mels: bands that the encoder sees.
        latent_dim: numbers in a latent.
        encoder_width, decoder_width: channels of the networks.
        encoder_depth: blocks before and after the encoder's reduction in time.
        decoder_depth: blocks of the decoder at the rate of the latents and at that of the columns.
        expansion: of the channels inside a block.
        noise_channels: samples of each hop of the noise that the decoder's blocks see.
    """

    sample_rate: int = 16_000
    samples_per_latent: int = 1000
    hop_length: int = 250
    fft_size: int = 1000
    num_mels: int = 100
    latent_dim: int = 48
    encoder_width: int = 224
    decoder_width: int = 320
    encoder_depth: tuple[int, int] = (2, 2)
    decoder_depth: tuple[int, int] = (2, 4)
    expansion: int = 3
    noise_channels: int = 8

    def __post_init__(self) -> None:
        if self.samples_per_latent % self.hop_length:
            raise ValueError(
                f"samples_per_latent {self.samples_per_latent} must be a multiple of hop_length"
                f" {self.hop_length}"
            )
        if self.fft_size % (2 * self.hop_length) or self.fft_size < 4 * self.hop_length:
            raise ValueError(
                f"fft_size must be an even multiple of hop_length {self.hop_length}, at least four"
                f" times as large, got {self.fft_size}"
            )

    @property
    def columns_per_latent(self) -> int:
        return self.samples_per_latent // self.hop_length

    @property
    def mel(self) -> MelConfig:
        """Return the bands that the encoder sees, up to half the sample rate."""
        return MelConfig(
            filterbank_sample_rate=self.sample_rate,
            fft_size=self.fft_size,
            hop_length=self.hop_length,
            num_mels=self.num_mels,
            min_hz=30.0,
            max_hz=self.sample_rate / 2,
        )


class AudioCodec(nn.Module):
    """Encode a waveform to latents and decode latents and noise to a waveform."""

    def __init__(self, config: AudioCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioEncoder(config)
        self.decoder = AudioDecoder(config)

    def encode(self, waveform: Float[Tensor, "batch sample"]) -> Float[Tensor, "batch latent dim"]:
        """Return one latent for each `samples_per_latent` samples."""
        return self.encoder(waveform)

    def decode(
        self,
        latents: Float[Tensor, "batch latent dim"],
        noise: Float[Tensor, "batch hop column"],
    ) -> Float[Tensor, "batch sample"]:
        """Return the waveform of latents; `noise` is standard normal (see `noise_shape`)."""
        return self.decoder(latents, noise)

    def forward(
        self,
        waveform: Float[Tensor, "batch sample"],
        latent_noise: Float[Tensor, "batch latent dim"],
        noises: tuple[Tensor, ...],
    ) -> tuple[Float[Tensor, "batch latent dim"], list[Float[Tensor, "batch sample"]]]:
        """Return latents, and a decoding of them with the latent noise for each noise."""
        latents = self.encode(waveform)
        noisy = latents + latent_noise
        return latents, [self.decode(noisy, noise) for noise in noises]

    def noise_shape(self, num_latents: int) -> tuple[int, int]:
        """Return the shape of the noise that `num_latents` latents need, without the batch.

        It is one sample of noise for each of the waveform, a column a hop.
        """
        return self.config.hop_length, num_latents * self.config.columns_per_latent


class AudioEncoder(nn.Module):
    """Log-mel columns, ConvNeXt blocks, a reduction in time, ConvNeXt blocks."""

    def __init__(self, config: AudioCodecConfig) -> None:
        super().__init__()
        self.config = config
        width, (before, after) = config.encoder_width, config.encoder_depth
        stride = config.columns_per_latent
        self.conv_in = nn.Conv1d(config.num_mels, width, 3, padding=1)
        self.fine = _blocks(before, width, config.expansion)
        self.reduce = nn.Conv1d(width, width, stride, stride=stride)
        self.coarse = _blocks(after, width, config.expansion)
        self.conv_out = nn.Conv1d(width, config.latent_dim, 1)

    def forward(self, waveform: Float[Tensor, "batch sample"]) -> Float[Tensor, "batch latent dim"]:
        if waveform.shape[-1] % self.config.samples_per_latent:
            raise ValueError(
                f"the audio codec takes a multiple of {self.config.samples_per_latent} samples,"
                f" got {waveform.shape[-1]}"
            )
        x = self.fine(self.conv_in(scaled_log_mel(waveform, self.config.mel)))
        return self.conv_out(self.coarse(self.reduce(x))).transpose(1, 2)


class AudioDecoder(nn.Module):
    """ConvNeXt blocks at the rate of the latents, then with noise at that of the columns.

    Source:
        Siuzdak 2023 (Vocos): the inverse-STFT head. Gritsenko et al. 2020: the noise input. Engel
        et al. 2020 (DDSP): filtered noise, which has no trace of the columns' rate. Herre and
        Johnston 1996 (temporal noise shaping): a fine envelope over a coarse transform.
    """

    def __init__(self, config: AudioCodecConfig) -> None:
        super().__init__()
        self.config = config
        width, (coarse, fine) = config.decoder_width, config.decoder_depth
        stride = config.columns_per_latent
        self.conv_in = nn.Conv1d(config.latent_dim, width, 3, padding=1)
        self.coarse = _blocks(coarse, width, config.expansion)
        self.enlarge = nn.ConvTranspose1d(width, width, stride, stride=stride)
        self.noise_in = nn.Conv1d(config.noise_channels, width, 1)
        self.fine = _blocks(fine, width, config.expansion)
        self.norm = nn.LayerNorm(width)
        self.head = Linear(width, config.fft_size + 2)
        self.gains = Linear(width, config.num_mels)
        nn.init.zeros_(self.gains.weight)
        nn.init.constant_(self.gains.bias, math.log(2 * GATE))
        self.envelope = Linear(width, ENVELOPE_STEPS)
        nn.init.zeros_(self.envelope.weight)
        nn.init.zeros_(self.envelope.bias)

    def forward(
        self,
        latents: Float[Tensor, "batch latent dim"],
        noise: Float[Tensor, "batch hop column"],
    ) -> Float[Tensor, "batch sample"]:
        x = self.enlarge(self.coarse(self.conv_in(latents.transpose(1, 2))))
        x = self.fine(x + self.noise_in(noise[:, : self.config.noise_channels]))
        x = self.norm(x.transpose(1, 2))
        log_magnitude, phase = self.head(x).float().chunk(2, dim=-1)
        gains = _gated(self.gains(x).float()) @ band_shares(self.config.mel).to(x.device)
        spectrum = torch.polar(_gated(log_magnitude), phase) + gains * self._white(noise)
        sound = overlap_add(spectrum, self.config.hop_length)
        return sound * _interpolated(self.envelope(x).float().flatten(1), sound.shape[-1])

    def _white(self, noise: Float[Tensor, "batch hop column"]) -> Tensor:
        """Return the noise's spectrum, `batch column frequency`, of variance 1."""
        size, hop = self.config.fft_size, self.config.hop_length
        with torch.autocast(noise.device.type, enabled=False):
            waveform = noise.float().transpose(1, 2).flatten(1)
            spectrum = stft(waveform, fft_size=size, hop_length=hop).transpose(1, 2)
        return spectrum / math.sqrt(3 / 8 * size)  # the sum of the squared window


def _gated(log_magnitude: Tensor) -> Tensor:
    """Return magnitudes, of which those below `GATE` are exactly 0."""
    return functional.relu(log_magnitude.clamp(max=6).exp() - GATE)


def _interpolated(
    log_gain: Float[Tensor, "batch step"], num_samples: int
) -> Float[Tensor, "batch sample"]:
    """Return gains from 0.00005 to 20, whose logarithm is linear between steps."""
    log_gain = log_gain.clamp(-10, 3)[:, None]
    return functional.interpolate(log_gain, num_samples, mode="linear")[:, 0].exp()


@cache
@torch.inference_mode(mode=False)  # what is kept must also serve training
def band_shares(mel: MelConfig) -> Float[Tensor, "mel frequency"]:
    """Return each band's share in every frequency; shares add up to 1, or to 0 beyond the bands."""
    bank = mel_filterbank(mel)
    return bank / bank.sum(0).clamp(min=1e-6)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over seven columns, layer norm, and a two-layer map, added.

    Source:
        Liu et al. 2022 (ConvNeXt), with one axis.
    """

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = Linear(width, expansion * width)
        self.narrow = Linear(expansion * width, width)
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(
        self, x: Float[Tensor, "batch channel column"]
    ) -> Float[Tensor, "batch channel column"]:
        hidden = self.norm(self.depthwise(x).transpose(1, 2))
        return x + self.narrow(functional.gelu(self.widen(hidden))).transpose(1, 2)


def scaled_log_mel(
    waveform: Float[Tensor, "batch sample"], mel: MelConfig
) -> Float[Tensor, "batch mel column"]:
    """Return log mel magnitudes, shifted and scaled to about [-2, 2]; silence is constant.

    They are computed in single precision, within mixed precision too.
    """
    with torch.autocast(waveform.device.type, enabled=False):
        magnitude = stft_magnitude(
            waveform, fft_size=mel.fft_size, hop_length=mel.hop_length, epsilon=0.0
        )
        # Weights that sum to about 1, so that the floor means the same at every window size.
        bank = mel_filterbank(mel).to(magnitude) * (mel.filterbank_sample_rate / mel.fft_size)
        return ((bank @ magnitude + 1e-4).log() + 5.0) / 2.5


def overlap_add(
    spectrum: Float[Tensor, "batch column frequency"] | Tensor, hop_length: int
) -> Float[Tensor, "batch sample"]:
    """Return the waveform of Hann-windowed spectra, `hop_length` samples a column.

    Column k is centred on the samples of hop k, as in `audio.stft`. The squared windows add up to
    a constant except within half a window of the two ends, which are quieter.
    """
    fft_size = 2 * (spectrum.shape[-1] - 1)
    window = hann_window(fft_size).to(spectrum.real)
    frames = torch.fft.irfft(spectrum, fft_size, dim=-1) * window  # b k n
    count = frames.shape[1]
    length = (count - 1) * hop_length + fft_size
    summed = functional.fold(
        frames.transpose(1, 2), (1, length), (1, fft_size), stride=(1, hop_length)
    )[:, 0, 0]
    start = (fft_size - hop_length) // 2
    weight = 3 * fft_size / (8 * hop_length)  # sum of squared Hann windows
    return summed[:, start : start + count * hop_length] / weight


def _blocks(count: int, width: int, expansion: int) -> nn.Sequential:
    return nn.Sequential(*(ConvNeXtBlock(width, expansion) for _ in range(count)))
