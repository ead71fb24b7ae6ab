"""MM-LDM's picture of a sound: log mel, 8-bit picture, image for the frames' autoencoder; and back.

The picture has 20 log10(mel) from -80 dB to 20 dB as its grey values 0 to 255, time from left to
right and the lowest band in row 0. As published it is stretched to a square of the frames' size; as
an option it keeps its aspect, each band a row and each column a column, with black beside it.

Two sample rates meet here and are named apart: `sample_rate` is that of the waveform,
`mel.filterbank_sample_rate` the one the mel bands are computed for. The published system keeps the
bands of 22.05 kHz for sound at 44.1 kHz: the picture then reaches 16 kHz, and the waveform of a
vocoder for 22.05 kHz is right when it is played at 44.1 kHz.

Source: Sun et al. 2024 (arXiv 2410.01594) and its release, whose constants these are.
"""

import math
from dataclasses import dataclass, field

import torch
from einops import repeat
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from soundreel.audio.mel import MelConfig, log_mel
from soundreel.audio.resize import resize, resize_uint8
from soundreel.errors import SoundreelError

DB_PER_LOG = 20.0 / math.log(10.0)


@dataclass(frozen=True, kw_only=True)
class MelImageConfig:
    """Rates, lengths and grey scale of the picture; the defaults are the published ones.

    Attributes:
        sample_rate: of the waveform, in Hz.
        num_samples: length of a clip; shorter sound is padded with silence, longer is refused.
        image_size: side of the square image in pixels; 0 keeps the picture's aspect.
        side_multiple: of such an image both sides are multiples of this: black rows beyond the
            highest band, and columns after the end, are added.
        min_db, max_db: mel magnitudes, in decibels, that become black and white.
    """

    sample_rate: int = 44_100
    num_samples: int = 70_560
    image_size: int = 256
    side_multiple: int = 16
    min_db: float = -80.0
    max_db: float = 20.0
    mel: MelConfig = field(default_factory=MelConfig)

    def __post_init__(self) -> None:
        for name in ("sample_rate", "num_samples", "side_multiple"):
            if getattr(self, name) <= 0:
                raise SoundreelError(f"{name} must be positive, got {getattr(self, name)}")
        if self.image_size < 0:
            raise SoundreelError(f"image_size is 0 or positive, got {self.image_size}")
        if self.min_db >= self.max_db:
            raise SoundreelError(
                f"min_db must be below max_db, got {self.min_db} and {self.max_db}"
            )
        if self.num_columns < 1:
            raise SoundreelError(
                f"num_samples must be at least one hop of {self.mel.hop_length}, "
                f"got {self.num_samples}"
            )

    @property
    def num_columns(self) -> int:
        """Return the number of columns of the spectrogram."""
        return self.num_samples // self.mel.hop_length

    @property
    def image_shape(self) -> tuple[int, int]:
        """Return height and width of the image."""
        if self.image_size:
            return self.image_size, self.image_size
        step = self.side_multiple
        return -(-self.mel.num_mels // step) * step, -(-self.num_columns // step) * step


def waveform_to_log_mel(
    waveform: Float[Tensor, "batch sample"], config: MelImageConfig
) -> Float[Tensor, "batch mel time"]:
    """Log mel of a whole clip.

    Raises:
        SoundreelError: the waveform is longer than the clip.
    """
    missing = config.num_samples - waveform.shape[-1]
    if missing < 0:
        raise SoundreelError(
            f"the waveform has {waveform.shape[-1]} samples, a clip {config.num_samples}; cut it"
        )
    return log_mel(functional.pad(waveform, (0, missing)), config.mel)


def log_mel_to_picture(
    log_magnitude: Float[Tensor, "batch mel time"], config: MelImageConfig
) -> UInt8[Tensor, "batch mel time"]:
    """Return grey values; fractions are cut off, as published."""
    # exp and log10 instead of one factor: the published order of operations decides the last bit.
    range_db = config.max_db - config.min_db
    below_white = 20 * torch.log10(torch.exp(log_magnitude)) - config.max_db
    level = ((below_white + range_db) / range_db).clamp(0, 1)
    return (255 * level).to(torch.uint8)


def encode_mel_image(
    waveform: Float[Tensor, "batch sample"], config: MelImageConfig
) -> Float[Tensor, "batch 3 height width"]:
    """Return the image of a mono waveform in [-1, 1]: three equal channels in [-1, 1]."""
    picture = log_mel_to_picture(waveform_to_log_mel(waveform, config), config)
    height, width = config.image_shape
    if config.image_size:
        picture = resize_uint8(picture, height, width)
    else:
        bands, columns = picture.shape[-2:]
        picture = functional.pad(picture, (0, width - columns, 0, height - bands))
    return repeat(picture.float() / 127.5 - 1, "batch height width -> batch 3 height width")


def decode_mel_image(
    image: Float[Tensor, "batch 3 height width"], config: MelImageConfig
) -> Float[Tensor, "batch mel time"]:
    """Return the log mel that an image shows, for a vocoder or Griffin-Lim.

    Channels are averaged; nothing is rounded to 8 bits. Magnitudes stay at or above `mel.floor`.
    """
    grey, bands, columns = image.mean(dim=1), config.mel.num_mels, config.num_columns
    grey = resize(grey, bands, columns) if config.image_size else grey[:, :bands, :columns]
    level = ((grey + 1) / 2).clamp(0, 1)
    decibel = config.min_db + level * (config.max_db - config.min_db)
    return (decibel / DB_PER_LOG).clamp(min=math.log(config.mel.floor))


def fit_length(
    waveform: Float[Tensor, "batch sample"], num_samples: int
) -> Float[Tensor, "batch num_samples"]:
    """Cut the end off, or add silence: synthesis gives whole hops, a clip has any length."""
    return functional.pad(waveform, (0, max(0, num_samples - waveform.shape[-1])))[:, :num_samples]
