"""Decoded pictures with their times, from a point of the file on, damaged ones left out."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from soundreel.media.container import seek, tick_of

logger = logging.getLogger(__name__)

DECODE_FROM_START = Fraction(2)
"""Pieces that begin before this many seconds are reached by decoding, later ones by seeking."""
SEEK_LEADS = (Fraction(0), Fraction(2), Fraction(20))
"""How far before the wanted time a seek aims, tried in turn until a key frame lies before it."""
MAX_GREY_LEAD = Fraction(1)


@dataclass(frozen=True, slots=True)
class TimedFrame:
    """A picture shown from `start` to `end`, seconds on the file's clock.

    Both are widened (start by half a tick of the time base, end by two), because containers round
    times and durations: Matroska's tick is a millisecond.
    """

    picture: av.VideoFrame
    start: Fraction
    end: Fraction


def timed_frames(
    container: InputContainer, stream: VideoStream, zero: Fraction, start: Fraction
) -> Iterator[TimedFrame]:
    """The pictures of a stream, the first one at or before `start` where there is one."""
    stream.codec_context.thread_count = 1
    if start > DECODE_FROM_START:
        for lead in SEEK_LEADS:
            if lead >= start or not seek(container, stream, zero + start - lead):
                break
            frames = _from_key_frame(_decode(container, stream, zero))
            first = next(frames, None)
            if first is not None and first.start <= start:
                yield first
                yield from frames
                return
        seek(container, stream, zero)
    yield from _without_grey_lead(_decode(container, stream, zero), container.name)


def _decode(container: InputContainer, stream: VideoStream, zero: Fraction) -> Iterator[TimedFrame]:
    damaged = 0
    default_duration = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
    previous_end = Fraction(0)
    for picture in _pictures(container, stream):
        if picture is None or picture.is_corrupt:
            damaged += 1
            continue
        tick = picture.time_base or tick_of(stream)
        begin = previous_end if picture.pts is None else picture.pts * tick - zero
        duration = picture.duration * tick if picture.duration else default_duration
        previous_end = begin + duration
        yield TimedFrame(picture, begin - tick / 2, previous_end + 2 * tick)
    if damaged:
        logger.warning("%s: %d damaged pictures left out", container.name, damaged)


def _pictures(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | None]:
    """Decoded pictures, None for every packet that cannot be decoded; a broken tail ends it."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.FFmpegError, OSError):
            yield None
            return
        if packet is None:
            return
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            yield None


def _from_key_frame(frames: Iterator[TimedFrame]) -> Iterator[TimedFrame]:
    """After a seek, pictures before the first key frame refer to others that were not decoded."""
    for frame in frames:
        if frame.picture.key_frame:
            yield frame
            break
    yield from frames


def _without_grey_lead(frames: Iterator[TimedFrame], name: str) -> Iterator[TimedFrame]:
    """Leave out a start that was encoded from a decoder without its first reference picture.

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
        if frame.start - first.start > MAX_GREY_LEAD:
            break
    yield from lead
    yield from frames


def _grey_share(picture: av.VideoFrame) -> float:
    """Share of the picture that is the mid grey of an absent reference (luma and chroma 128)."""
    small = picture.reformat(width=64, height=64, format="rgb24", interpolation="POINT", threads=1)
    return float((np.abs(small.to_ndarray().astype(np.int16) - 130) <= 4).all(axis=-1).mean())
