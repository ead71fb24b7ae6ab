"""Decoded sound in the track's own rate, each block with its place on the file's clock."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from jaxtyping import Float32

from soundreel.media.container import MAX_GAP, name_of, seek, tick_of, time_jump
from soundreel.media.restarts import is_seekable, steady_packets
from soundreel.media.sound_converter import Samples, SoundConverter

logger = logging.getLogger(__name__)

DECODE_FROM_START = Fraction(30)
"""Pieces that begin before this many seconds are reached by decoding, later ones by seeking."""
PREROLL = Fraction(1, 2)
"""Seconds decoded before a wanted sample, so that overlapping transforms have settled."""
SEEK_LEADS = (PREROLL, Fraction(10))
MAX_JITTER = Fraction(1, 20)
"""Seconds by which a block's time may differ from the end of the one before without being a gap."""
MAX_PADDING = 4096
"""Samples by which the last block of a codec may exceed the track."""

Block = tuple[int, Samples]


def native_blocks(
    container: InputContainer,
    stream: AudioStream,
    zero: Fraction,
    first: int,
    num_channels: int | None,
) -> Iterator[Block]:
    """Yield blocks as (index of their first sample, samples), from at or before `first` on.

    Sample n lies at `n / rate` on the file's clock. Blocks do not overlap; between two there may be
    a gap. Block follows block without regard to their times, unless these disagree by more than
    50 ms: Matroska rounds them to 1 ms, and gives Vorbis blocks up to 20 ms late for seconds on
    end. So Vorbis is always decoded from its beginning. After a seek the place of other codecs is
    exact in MP4 and Ogg and to a millisecond in Matroska.

    Args:
        zero: container time that the file's clock calls 0; blocks before it have negative indices.
        num_channels: 1 or 2 mixes any layout down (or doubles mono); None keeps the header's.
    """
    stream.codec_context.thread_count = 1  # callers decode many files side by side
    rate = stream.codec_context.sample_rate
    is_deep = first > DECODE_FROM_START * rate and stream.codec_context.name != "vorbis"
    if is_deep and is_seekable(container):
        for lead in SEEK_LEADS:
            if not seek(container, stream, zero + Fraction(first, rate) - lead):
                break
            blocks = _placed(container, stream, zero, num_channels, settle=lead)
            head = next(blocks, None)
            if head is not None and head[0] <= first:
                yield head
                yield from blocks
                return
        seek(container, stream, zero)
    yield from _placed(container, stream, zero, num_channels, settle=Fraction(0))


def _placed(
    container: InputContainer,
    stream: AudioStream,
    zero: Fraction,
    num_channels: int | None,
    *,
    settle: Fraction,
) -> Iterator[Block]:
    rate = stream.codec_context.sample_rate
    end = _padding_start(container, stream, zero)
    stamped = _stamped(container, stream, zero, num_channels)
    head, length = [], 0
    while length < settle * rate and (block := next(stamped, None)) is not None:
        head.append(block)
        length += block[1].shape[1]
    position = _steady_start(head, rate, tick_of(stream))
    for stamp, samples in chain(head, stamped):
        if stamp is not None:
            if position is not None and stamp - position > MAX_GAP * rate:
                raise time_jump(name_of(container), Fraction(position, rate), Fraction(stamp, rate))
            if position is None or stamp - position > MAX_JITTER * rate:
                position = stamp
            elif position - stamp > MAX_JITTER * rate:
                samples = samples[:, position - stamp :]
        position = position or 0
        if end is not None and end <= position + samples.shape[1] <= end + MAX_PADDING:
            samples = samples[:, : max(0, end - position)]
        if samples.shape[1]:
            yield position, samples
            position += samples.shape[1]


def _stamped(
    container: InputContainer, stream: AudioStream, zero: Fraction, num_channels: int | None
) -> Iterator[tuple[int | None, Samples]]:
    """Yield blocks with the place that their own time gives them, if they have one."""
    converter = SoundConverter(stream, num_channels)
    converted = chain.from_iterable(map(converter.push, _frames(container, stream)))
    for time, samples in chain(converted, converter.flush()):
        yield None if time is None else round((time - zero) * converter.rate), samples


def _steady_start(
    blocks: list[tuple[int | None, Float32[np.ndarray, "channel _sample"]]],
    rate: int,
    tick: Fraction,
) -> int | None:
    """Return the place of the first block after a seek: the earliest its successors allow.

    Single times may be late, but not early beyond rounding by half a tick.
    """
    offsets: list[int] = []
    length = 0
    for stamp, samples in blocks:
        if stamp is not None:
            if offsets and abs(stamp - length - offsets[0]) > MAX_JITTER * rate:
                break  # a gap: what follows says nothing of what is before
            offsets.append(stamp - length)
        length += samples.shape[1]
    return min(offsets) + round(tick * rate) // 2 if offsets else None


def _padding_start(container: InputContainer, stream: AudioStream, zero: Fraction) -> int | None:
    """Return the sample at which a codec's filling of its last block begins; only MP4 tells it."""
    if "mp4" not in container.format.name or not stream.duration:
        return None
    end = ((stream.start_time or 0) + stream.duration) * tick_of(stream) - zero
    return round(end * stream.codec_context.sample_rate)


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[av.AudioFrame]:
    """Yield decoded frames; damaged packets are left out and counted in the log."""
    damaged = 0
    packets = steady_packets(container, stream)
    while True:
        try:
            packet = next(packets, None)
            frames = [] if packet is None else packet.decode()
        except av.error.EOFError:
            break
        except av.error.InvalidDataError:
            damaged += 1
            continue
        if packet is None:
            break
        yield from cast(list[av.AudioFrame], frames)
    if damaged:
        logger.warning("%s: %d damaged pieces of sound left out", name_of(container), damaged)
