"""The clock of a film: which frames and samples each of its windows covers, in integers.

Also cuts pictures and sound that are given into such windows, one after the other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count, islice, repeat
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.clip import Clip, Seconds
from soundreel.errors import SoundreelError
from soundreel.types import ClipSpec

Modality = Literal["both", "audio", "video"]
"""The part of the past that a film goes on from, and that is made."""

Picture = UInt8[np.ndarray, "_height _width 3"]
Frames = UInt8[np.ndarray, "_frame height width 3"] | Float32[np.ndarray, "_frame height width 3"]
Sound = Float32[np.ndarray, "channel _sample"]


@dataclass(frozen=True, slots=True)
class FilmClock:
    """Frames and samples that each window of a film covers, in integers.

    Args:
        clip: length and rates of a window.
        overlap: frames that a window shares with the one before it, at most half a window.
        origin: first frame of window 0.

    Raises:
        SoundreelError: the overlap is negative or longer than half a window.
    """

    clip: ClipSpec
    overlap: int = 0
    origin: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.clip.num_frames // 2:
            raise SoundreelError(
                f"windows of {self.clip.num_frames} frames overlap by 0 to "
                f"{self.clip.num_frames // 2} frames, got {self.overlap}"
            )

    @property
    def hop(self) -> int:
        """Return frames that each further window adds."""
        return self.clip.num_frames - self.overlap

    def start(self, window: int) -> int:
        """Return first frame of a window."""
        return self.origin + window * self.hop

    def sample(self, frame: int) -> int:
        """Return first sample of a frame of the film."""
        return self.clip.frame_to_sample(frame)

    def num_windows(self, num_frames: int) -> int:
        """Return how many windows make the film's first `num_frames` frames final."""
        return max(0, -(-(num_frames - self.origin) // self.hop))

    def num_frames(self, duration: Seconds) -> int:
        """Return frames of so many seconds, to the nearest.

        Raises:
            SoundreelError: that is no frame.
        """
        frames = round(Fraction(duration) * self.clip.frame_rate)
        if frames < 1:
            raise SoundreelError(
                f"a film of {float(duration):g} s holds no frame at "
                f"{float(self.clip.frame_rate):g} frames/s; ask for a longer one"
            )
        return frames


def exact_seconds(seconds: Seconds) -> Fraction:
    """Return the time that is meant: 0.3 is three tenths, not the binary number below it."""
    return Fraction(seconds).limit_denominator(1_000_000)


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a source: from where, and how long (None: to the end), in seconds."""

    start: Fraction
    duration: Fraction | None

    @classmethod
    def of(cls, start: Seconds, duration: Seconds | None) -> "Part":
        """Return the part that is meant."""
        return cls(exact_seconds(start), None if duration is None else exact_seconds(duration))

    def length(self, end: Fraction) -> Fraction:
        """Return the part's length in a source that ends at `end`.

        Raises:
            SoundreelError: the part is not within the source.
        """
        rest = end - self.start
        if self.start < 0 or rest <= 0 or (self.duration or 0) > rest:
            raise SoundreelError(
                f"what is given lasts {float(end):.3f} s; a part from {float(self.start):g} s"
                + ("" if self.duration is None else f" of {float(self.duration):g} s")
                + " is not within it"
            )
        return rest if self.duration is None else self.duration


def given_frames(pictures: Iterable[Picture], clock: FilmClock) -> Iterator[Clip]:
    """Cut pictures of the model's rate and size into the windows of a film.

    The last windows hold the last picture as long as they need to.
    """
    spec, source = clock.clip, iter(pictures)
    window = list(islice(source, spec.num_frames))
    while window:
        held = [window[-1]] * (spec.num_frames - len(window))
        yield Clip(np.stack([*window, *held]), None, spec.frame_rate, spec.sample_rate)
        window = window[clock.hop :] + list(islice(source, clock.hop))


def given_sound(blocks: Iterable[Sound], clock: FilmClock) -> Iterator[Clip]:
    """Cut sound of the model's rate and channels into the windows of a film, silence after it."""
    spec, source = clock.clip, iter(blocks)
    sound = np.zeros((spec.num_channels, 0), np.float32)
    for number in count():
        while sound.shape[1] < spec.num_samples and (block := next(source, None)) is not None:
            sound = np.concatenate([sound, block], axis=1)
        if not sound.shape[1]:
            return
        window = sound[:, : spec.num_samples]
        silence = ((0, 0), (0, spec.num_samples - window.shape[1]))
        yield Clip(None, np.pad(window, silence), spec.frame_rate, spec.sample_rate)
        sound = sound[
            :, clock.sample(clock.start(number + 1)) - clock.sample(clock.start(number)) :
        ]


def to_border(waveform: Sound | None, clock: FilmClock, begin: int) -> Sound | None:
    """Return a window's sound up to its last frame's end.

    Where a frame is no whole number of samples, some windows are one sample longer than others; the
    last sample is held for it.
    """
    if waveform is None:
        return None
    length = clock.sample(begin + clock.clip.num_frames) - clock.sample(begin)
    return np.pad(waveform, ((0, 0), (0, length - waveform.shape[1])), mode="edge")


def only(clip: Clip, modality: Modality) -> Clip:
    """Return the clip with what is to go on alone.

    Raises:
        SoundreelError: the clip does not have it.
    """
    missing = {"video": clip.frames is None, "audio": clip.waveform is None}
    wanted = ("video", "audio") if modality == "both" else (modality,)
    for name in wanted:
        if missing[name]:
            raise SoundreelError(f"the clip to go on from has no {name}; choose another modality")
    if modality == "audio":
        return replace(clip, frames=None)
    return replace(clip, waveform=None) if modality == "video" else clip


def held_pictures(pictures: Iterator[Picture], num_pictures: int) -> Iterator[Picture]:
    """Yield so many pictures, the last one as often as is needed."""
    last = None
    for _, last in zip(range(num_pictures), pictures, strict=False):
        yield last
        num_pictures -= 1
    if last is not None:
        yield from repeat(last, num_pictures)


def first_samples(blocks: Iterator[Sound], limit: int) -> Iterator[Sound]:
    """Yield the first samples, at most `limit`."""
    for block in blocks:
        if limit <= 0:
            return
        yield block[:, :limit]
        limit -= block.shape[1]
