"""Types of every layer: the pair `AV`, and the sizes and rates of a clip or of its latents.

Every length, rate and shape is derived here, in integers or exact fractions, so that no other
module multiplies a duration in float seconds by a rate.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from soundreel.errors import SoundreelError

Number = float | int


@dataclass(frozen=True, slots=True)
class AV:
    """A video tensor and an audio tensor, always in that order; either may be absent (`None`).

    Arithmetic maps over the modalities that are present: `a + b`, `2 * a`, `-a`. Two operands must
    have the same modalities present.

    Shapes:
        pixels and waveform: video `batch frame channel height width`, audio `batch channel sample`,
        both float in [-1, 1]; latents as their model defines them.
    """

    video: Tensor | None
    audio: Tensor | None

    def __iter__(self) -> Iterator[Tensor | None]:
        yield self.video
        yield self.audio

    def map(self, function: Callable[..., Tensor], *others: "AV | Number | None") -> "AV":
        """Apply `function(own, *other's)` to each modality present; numbers are broadcast."""
        return AV(
            *(
                None
                if own is None
                else function(own, *(o[name] if isinstance(o, AV) else o for o in others))
                for name, own in (("video", self.video), ("audio", self.audio))
            )
        )

    def __getitem__(self, modality: str) -> Tensor:
        """Return the tensor of one modality, `"video"` or `"audio"`; `KeyError` if it is absent."""
        value = getattr(self, modality) if modality in ("video", "audio") else None
        if value is None:
            raise KeyError(f"this AV holds {list(self.present)}, not {modality!r}")
        return value

    @property
    def present(self) -> tuple[str, ...]:
        """Return the names of the modalities that are not `None`, video first."""
        return tuple(name for name in ("video", "audio") if getattr(self, name) is not None)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that are present, video first."""
        return tuple(value for value in self if value is not None)

    @property
    def batch_size(self) -> int:
        return self.tensors[0].shape[0]

    @property
    def device(self) -> torch.device:
        return self.tensors[0].device

    def replace(self, modality: str, value: Tensor | None) -> "AV":
        """Return a copy with one modality exchanged."""
        if modality == "video":
            return AV(value, self.audio)
        if modality == "audio":
            return AV(self.video, value)
        raise KeyError(f"modality is 'video' or 'audio', got {modality!r}")

    def to(self, *args: object, **kwargs: object) -> "AV":
        return self.map(lambda x: x.to(*args, **kwargs))

    def detach(self) -> "AV":
        return self.map(Tensor.detach)

    def rows(self, index: slice | Tensor) -> "AV":
        """Select along the batch axis."""
        return self.map(lambda x: x[index])

    def __add__(self, other: "AV | Number") -> "AV":
        return self.map(torch.add, other)

    def __sub__(self, other: "AV | Number") -> "AV":
        return self.map(torch.sub, other)

    def __mul__(self, other: "AV | Number") -> "AV":
        return self.map(torch.mul, other)

    def __truediv__(self, other: "AV | Number") -> "AV":
        return self.map(torch.div, other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Number) -> "AV":
        return self.map(lambda x: other - x)

    def __neg__(self) -> "AV":
        return self.map(torch.neg)

    @staticmethod
    def cat(parts: "list[AV]") -> "AV":
        """Concatenate along the batch axis."""
        return parts[0].map(lambda *tensors: torch.cat(tensors), *parts[1:])


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSpec:
    """Sizes and rates of the clips a model works on.

    The k-th frame is shown from `k / frame_rate` on; sample n is taken at `n / sample_rate`; both
    on one clock that starts at 0. All conversions are exact.

    Units: `frame_rate` in frames per second (any rational), `sample_rate` in Hz, sizes in pixels.
    """

    num_frames: int = 16
    height: int = 64
    width: int = 64
    frame_rate: Fraction = Fraction(10)
    sample_rate: int = 16_000
    num_channels: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_rate", Fraction(self.frame_rate))
        for name in ("num_frames", "height", "width", "frame_rate", "sample_rate", "num_channels"):
            if getattr(self, name) <= 0:
                raise SoundreelError(f"ClipSpec.{name} must be positive, got {getattr(self, name)}")

    @property
    def duration(self) -> Fraction:
        """Return the exact length in seconds."""
        return self.num_frames / self.frame_rate

    @property
    def duration_s(self) -> float:
        return float(self.duration)

    @property
    def num_samples(self) -> int:
        return self.frame_to_sample(self.num_frames)

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """Return `frame channel height width`."""
        return (self.num_frames, 3, self.height, self.width)

    @property
    def audio_shape(self) -> tuple[int, int]:
        """Return `channel sample`."""
        return (self.num_channels, self.num_samples)

    def frame_to_sample(self, frame: int) -> int:
        """Return the first sample of a frame: floor(frame * sample_rate / frame_rate)."""
        return frame_to_sample(frame, self.frame_rate, self.sample_rate)

    def num_windows(self, num_frames: int, stride: int = 1) -> int:
        """Return the number of windows, one every `stride` frames, within `num_frames`."""
        if stride <= 0:
            raise ValueError(f"stride must be positive, got {stride}")
        return max(0, (num_frames - self.num_frames) // stride + 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentSpec:
    """Shapes of MM-LDM's perceptual latents z_v and z_a, `channel height width` each."""

    video_channels: int = 16
    video_size: int = 16
    audio_channels: int = 16
    audio_size: int = 8
    audio_width: int = 0  # 0: as high as it is wide

    @property
    def video_shape(self) -> tuple[int, int, int]:
        return (self.video_channels, self.video_size, self.video_size)

    @property
    def audio_shape(self) -> tuple[int, int, int]:
        return (self.audio_channels, self.audio_size, self.audio_width or self.audio_size)


def frame_to_sample(frame: int, frame_rate: Fraction | int, sample_rate: int) -> int:
    """Return floor(frame * sample_rate / frame_rate), in integers.

    A window of frames [a, b) owns the samples [frame_to_sample(a), frame_to_sample(b)), so that
    adjacent windows share no sample and leave none out.
    """
    return (frame * sample_rate * Fraction(frame_rate).denominator) // Fraction(
        frame_rate
    ).numerator
