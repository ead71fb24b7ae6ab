"""Decoded pictures with their times, from a point of the file on, damaged ones left out."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from soundreel.media.container import name_of, seek, start_of, tick_of
from soundreel.media.restarts import is_seekable, steady_packets
from soundreel.media.skipping import IsWanted, Skipping, earliest

logger = logging.getLogger(__name__)

DECODE_FROM_START = Fraction(2)
"""Pieces that begin before this many seconds are reached by decoding, later ones by seeking."""
SEEK_LEADS = (Fraction(0), Fraction(2), Fraction(20))
"""Seconds before the wanted time that a seek aims at, tried in turn until a key frame lies before
it."""
MAX_GREY_LEAD = Fraction(1)
MAX_LEAD = Fraction(10)
"""Seconds of pictures among which the first key frame is searched; some codecs mark none."""
MAX_PIXEL_ASPECT = 16
"""Pixels told to be longer than this in one direction are taken for square."""


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """Holds a picture shown from `begin` to `end`, seconds on the file's clock.

    Attributes:
        tick: seconds of a unit of its timestamps, to which containers round.
        pixel_aspect: width of a pixel of the stored picture over its height.
    """

    picture: av.VideoFrame
    begin: Fraction
    duration: Fraction
    tick: Fraction
    pixel_aspect: Fraction

    @property
    def start(self) -> Fraction:
        """Return the earliest time for which it is the picture wanted."""
        return earliest(self.begin, self.tick)

    @property
    def end(self) -> Fraction:
        """Return the time up to which it is shown if none follows, widened by two ticks."""
        return self.begin + self.duration + 2 * self.tick


def timed_frames(
    container: InputContainer,
    stream: VideoStream,
    zero: Fraction,
    start: Fraction,
    is_wanted: IsWanted | None = None,
) -> Iterator[TimedFrame]:
    """Yield the pictures of a stream, the first one at or before `start` where there is one.

    Args:
        zero: container time that the file's clock calls 0; pictures before it are left out.
        is_wanted: pictures for which it is not true may be left out; None wants all. The first
            and the last one are never left out.
    """
    skipping = None if is_wanted is None else Skipping(stream, zero, is_wanted)
    stream.codec_context.thread_count = 1  # callers decode many files side by side
    if start > DECODE_FROM_START and is_seekable(container):
        for lead in SEEK_LEADS:
            if lead >= start or not seek(container, stream, zero + start - lead):
                break
            frames = _from_key_frame(_decode(container, stream, zero, skipping))
            first = next(frames, None)
            if first is not None and first.start <= start:
                yield from _skipping_from(first, frames, skipping)
                return
        # Transport streams are searched by decoding times, which begin before the first picture's.
        if not seek(container, stream, zero - MAX_LEAD):
            seek(container, stream, zero)
    frames = (frame for frame in _decode(container, stream, zero, skipping) if frame.begin >= 0)
    frames = _without_grey_lead(frames, name_of(container))
    first = next(frames, None)
    if first is not None:
        yield from _skipping_from(first, frames, skipping)


def _skipping_from(
    first: TimedFrame, frames: Iterator[TimedFrame], skipping: Skipping | None
) -> Iterator[TimedFrame]:
    """Begin to skip once the first picture is found, for which each one matters."""
    if skipping is not None:
        skipping.is_on = True
    yield first
    yield from frames


def first_shown(container: InputContainer, stream: VideoStream) -> TimedFrame | None:
    """Decode up to the first picture that needs no other; None if there is none at all.

    Pictures before the first key frame refer to others that the file does not hold, and some
    decoders make them up. Times are on the container's own clock.
    """
    stream.codec_context.thread_count = 1
    frames = _decode(container, stream, Fraction(0))
    first = next(frames, None)
    frame = first
    while first is not None and frame is not None and frame.begin - first.begin <= MAX_LEAD:
        if frame.picture.key_frame:
            return frame
        frame = next(frames, None)
    return first


def _decode(
    container: InputContainer,
    stream: VideoStream,
    zero: Fraction,
    skipping: Skipping | None = None,
) -> Iterator[TimedFrame]:
    damaged = 0
    default_duration = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
    previous_end = start_of(stream) - zero
    told = _PixelAspect(stream)
    for picture in _pictures(container, stream, skipping):
        if picture is None or picture.is_corrupt:
            damaged += 1
            if skipping is not None:
                skipping.is_on = False
            continue
        tick = picture.time_base or tick_of(stream)
        begin = previous_end if picture.pts is None else picture.pts * tick - zero
        duration = picture.duration * tick if picture.duration else default_duration
        previous_end = begin + duration
        yield TimedFrame(picture, begin, duration, tick, told.now())
    if damaged:
        logger.warning("%s: %d damaged pictures left out", name_of(container), damaged)


class _PixelAspect:
    """Tells the shape of a stream's pixels: what the container says, until the codec changes."""

    def __init__(self, stream: VideoStream) -> None:
        self._stream = stream
        self._first = stream.codec_context.sample_aspect_ratio
        self._told = stream.sample_aspect_ratio or self._first

    def now(self) -> Fraction:
        """Return width over height of a pixel; 1 where nothing sensible is told."""
        coded = self._stream.codec_context.sample_aspect_ratio
        if self._first is None and self._told is None:
            self._first = self._told = coded
        aspect = self._told if coded == self._first else coded
        if not aspect or not Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT:
            return Fraction(1)
        return Fraction(aspect)


def _pictures(
    container: InputContainer, stream: VideoStream, skipping: Skipping | None
) -> Iterator[av.VideoFrame | None]:
    """Yield decoded pictures, None for every packet that cannot be; a broken tail ends it."""
    packets = steady_packets(container, stream)
    calls = (packet.decode for packet in packets) if skipping is None else skipping.decode(packets)
    while True:
        try:
            decode = next(calls, None)
        except (av.error.FFmpegError, OSError):
            yield None
            return
        if decode is None:
            return
        try:
            yield from decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            yield None


def _from_key_frame(frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    """Leave out, after a seek, pictures that refer to others which were not decoded."""
    for frame in frames:
        if frame.picture.key_frame:
            yield frame
            break
    yield from frames


def _without_grey_lead(frames: Iterator[TimedFrame], name: str) -> Iterator[TimedFrame]:
    """Leave out a start that was encoded without its first reference picture.

    Such files (GRID has some, and copies of them) begin with an evenly grey picture on which
    patches of the scene appear, until all of it shows at once. If that does not happen within a
    second, grey was meant.
    """
    first = next(frames, None)
    if first is None:
        return
    if _grey_share(first.picture) < 1:
        yield first
        yield from frames
        return
    lead = [first]
    for frame in frames:
        if _grey_share(frame.picture) < 0.1:
            logger.warning("%s: left out %d grey pictures at the start", name, len(lead))
            lead = [frame]
            break
        lead.append(frame)
        if frame.begin - first.begin > MAX_GREY_LEAD:
            break
    yield from lead
    yield from frames


def _grey_share(picture: av.VideoFrame) -> float:
    """Return the share of mid grey, as of an absent reference (luma and chroma 128)."""
    small = picture.reformat(width=64, height=64, format="rgb24", interpolation="POINT", threads=1)
    return float((np.abs(small.to_ndarray().astype(np.int16) - 130) <= 4).all(axis=-1).mean())
