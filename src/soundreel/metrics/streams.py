"""Clips that are decoded picture by picture and never lie in memory as a whole."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from math import ceil, floor

import numpy as np
import torch
from jaxtyping import Float, Float32, Num, UInt8
from torch import Tensor

from soundreel.clip import DEFAULT_FRAME_RATE, Clip, Seconds
from soundreel.errors import SoundreelError
from soundreel.media.container import DEFAULT_TRACKS, Tracks
from soundreel.media.decode import iter_audio, read_frames
from soundreel.media.errors import Source
from soundreel.media.framing import Framing
from soundreel.media.probe import probe
from soundreel.metrics.memorisation import thumbnails
from soundreel.metrics.sync.signals import (
    Curves,
    block_changes,
    check_measurable,
    check_rates,
    motion_curves,
    sound_curves,
)
from soundreel.types import frame_to_sample

Picture = UInt8[np.ndarray, "height width 3"]
Image = UInt8[Tensor, "1 3 height width"]
Waveform = Float32[np.ndarray, "channel sample"]

MAX_SHOWN_SIDE = 360
"""Pixels of the shorter side of clips that are only shown; larger ones are reduced."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipStream:
    """Picture and sound of one clip, one after the other.

    Attributes:
        pictures: starts to decode the pictures, from the first one on.
        sound: starts to decode so many samples, in blocks `channel sample`.
        frame_rate, sample_rate: of both, frames a second and Hz.
    """

    pictures: Callable[[], Iterator[Picture]]
    sound: Callable[[int], Iterator[Waveform]]
    frame_rate: Fraction
    sample_rate: int

    def num_samples(self, num_frames: int) -> int:
        """Return for how many samples so many pictures last."""
        return max(1, frame_to_sample(num_frames, self.frame_rate, self.sample_rate))


def open_stream(source: Source, duration: Seconds, tracks: Tracks = DEFAULT_TRACKS) -> ClipStream:
    """Open the first `duration` seconds of a media file, or all of it where it is shorter.

    Raises:
        MediaError: the file cannot be read.
        SoundreelError: it has no picture or no sound.
    """
    info = probe(source, tracks)
    if not (info.has_video and info.has_audio):
        raise SoundreelError(f"has no {'sound' if info.has_video else 'picture'}")
    frame_rate = info.frame_rate or DEFAULT_FRAME_RATE
    limit = max(1, round(Fraction(duration) * frame_rate))

    def sound(num_samples: int) -> Iterator[Waveform]:
        return iter_audio(
            source, sample_rate=info.sample_rate, num_samples=num_samples, tracks=tracks
        )

    return ClipStream(
        pictures=lambda: islice(read_frames(source, frame_rate=frame_rate, tracks=tracks), limit),
        sound=sound,
        frame_rate=frame_rate,
        sample_rate=info.sample_rate,
    )


def stream_of(clip: Clip) -> ClipStream:
    """Return the stream of a clip that lies in memory.

    Raises:
        SoundreelError: it has no picture or no sound.
    """
    frames, waveform = clip.frames, clip.waveform
    if frames is None or waveform is None:
        raise SoundreelError(f"has no {'picture' if frames is None else 'sound'}")
    return ClipStream(
        pictures=lambda: iter(frames),
        sound=lambda num_samples: iter([waveform[:, :num_samples]]),
        frame_rate=clip.frame_rate,
        sample_rate=clip.sample_rate,
    )


def curves_of(stream: ClipStream) -> Curves:
    """Compute the curves whose fit is the sync of a clip; memory does not grow with its pictures.

    Raises:
        SyncError: it is shorter than 1 s, has fewer than 8 frames a second or sound below 8 kHz.
        MediaError: it cannot be decoded.
    """
    check_rates(stream.frame_rate, stream.sample_rate)
    motion = motion_curves(stream.pictures())
    num_frames = len(motion.flux) + 1
    num_samples = stream.num_samples(num_frames)
    check_measurable(num_frames, stream.frame_rate, num_samples, stream.sample_rate)
    sound = sound_curves(stream.sound(num_samples), stream.sample_rate)
    return Curves(motion=motion, sound=sound, frame_rate=stream.frame_rate)


@dataclass(frozen=True, kw_only=True, eq=False)
class Watched:
    """All that metrics need of one clip, small whatever the size of its pictures.

    Attributes:
        thumbnails: of every picture, grey, 0 to 255.
        waveform: the mean of the channels.
        blocks: changes of the picture's blocks (`signals.block_changes`); None where they were not
            asked for.
        frames: pictures at a lower rate, as each network was said to see them, by its name.
        num_frames, frame_rate, sample_rate: of the clip itself.
    """

    thumbnails: Float[np.ndarray, "num_frames 16 16"]
    waveform: Float32[np.ndarray, "1 sample"]
    blocks: Float[np.ndarray, "interval block"] | None
    frames: dict[str, Num[Tensor, "frame 3 _height _width"]]
    num_frames: int
    frame_rate: Fraction
    sample_rate: int

    @property
    def duration_s(self) -> float:
        """Return for how many seconds the pictures last."""
        return float(self.num_frames / self.frame_rate)


def watch(
    stream: ClipStream,
    frame_rate: Fraction | None,
    seen_by: Mapping[str, Callable[[Image], Tensor]] | None = None,
) -> Watched:
    """Decode a clip once and keep what metrics need of it.

    Args:
        frame_rate: keep the pictures shown at this rate, and compute the changes of blocks; None
            keeps thumbnails and sound only.
        seen_by: networks by name, with what reduces a picture to what the network sees.

    Raises:
        MediaError: it cannot be decoded.
        SyncError: blocks are asked for and there is one picture only.
    """
    small: list[Float[np.ndarray, "16 16"]] = []
    reduce = seen_by or {}
    kept: dict[str, list[Tensor]] = {name: [] for name in reduce}
    ratio = Fraction(0) if frame_rate is None else frame_rate / stream.frame_rate

    def passing() -> Iterator[Picture]:
        for index, picture in enumerate(stream.pictures()):
            small.append(thumbnails(picture[None])[0].numpy())
            times = ceil((index + 1) * ratio) - ceil(index * ratio)
            for name, one in reduce.items() if times else ():
                kept[name] += [one(_image(picture))[0]] * times
            yield picture

    blocks = None
    if frame_rate is not None:
        blocks = block_changes(passing())
    else:
        deque(passing(), maxlen=0)
    sound = stream.sound(stream.num_samples(len(small)))
    wave = np.concatenate([block.mean(axis=0, keepdims=True) for block in sound], axis=1)
    return Watched(
        thumbnails=np.stack(small),
        waveform=wave,
        blocks=blocks,
        frames={
            name: torch.stack(kept[name][: max(1, floor(len(small) * ratio))]) for name in kept
        },
        num_frames=len(small),
        frame_rate=stream.frame_rate,
        sample_rate=stream.sample_rate,
    )


def _image(picture: Picture) -> Image:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(picture, 2, 0)))[None]


def load_to_show(source: Source, duration_s: float, start_s: float = 0.0) -> Clip:
    """Load a piece of a media file to be looked at, its pictures reduced to 360 pixels.

    Raises:
        MediaError: the file cannot be read.
    """
    info = probe(source)
    framing = None
    shorter = min(info.height, info.width)
    if shorter > MAX_SHOWN_SIDE:
        height, width = (round(n * MAX_SHOWN_SIDE / shorter) for n in (info.height, info.width))
        framing = Framing(height=height, width=width)
    if not start_s:
        return Clip.load_beginning(source, Fraction(duration_s), framing=framing)
    rate = info.frame_rate or DEFAULT_FRAME_RATE
    start = round(Fraction(start_s) * rate) / rate
    return Clip.load(source, start=start, duration=Fraction(duration_s), framing=framing)
