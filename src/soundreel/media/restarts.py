"""Demux files that were put one after the other: where times begin again, they go on instead.

Transport and program streams can be joined byte by byte, and every part brings its own times.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from soundreel.media.container import audio_streams, video_streams

JOINABLE = ("mpegts", "mpeg")
"""Formats that libavformat reads on beyond the end of a part."""
MIN_STEP_BACK = Fraction(1, 2)
"""Seconds by which decoding times must fall to be those of another part."""


@dataclass
class _Timeline:
    """Times of the parts of a file, as its packets pass by.

    Attributes:
        offsets: seconds by which the times of each part are too small.
        part: number of the part that each track is in; their packets change over one by one.
        reached: largest time of each track, on the whole file's clock.
    """

    offsets: list[Fraction] = field(default_factory=lambda: [Fraction(0)])
    part: dict[int, int] = field(default_factory=dict)
    last: dict[int, Fraction] = field(default_factory=dict)
    reached: dict[int, Fraction] = field(default_factory=dict)

    def offset_of(self, packet: av.Packet) -> Fraction:
        """Return the seconds to add to the times of the next packet of the file."""
        track, tick = packet.stream.index, packet.time_base
        order = packet.pts if packet.dts is None else packet.dts
        if order is None:
            return Fraction(0)
        begin = (order if packet.pts is None else packet.pts) * tick
        part = self.part.setdefault(track, 0)
        if order * tick < self.last.get(track, order * tick) - MIN_STEP_BACK:
            part = self.part[track] = part + 1
            if part == len(self.offsets):
                self.offsets.append(max(self.reached.values()) - begin)
        self.last[track] = order * tick
        end = begin + self.offsets[part] + _length(packet)
        self.reached[track] = max(end, self.reached.get(track, end))
        return self.offsets[part]


def steady_packets(
    container: InputContainer, stream: VideoStream | AudioStream
) -> Iterator[av.Packet]:
    """Yield the packets of a track with times that do not begin again."""
    if container.format.name not in JOINABLE:
        yield from container.demux(stream)
        return
    timeline = _Timeline()
    for packet in container.demux([*video_streams(container), *audio_streams(container)]):
        ticks = round(timeline.offset_of(packet) / packet.time_base) if packet.size else 0
        if packet.stream.index != stream.index:
            continue
        if ticks and packet.pts is not None:
            packet.pts += ticks
        if ticks and packet.dts is not None:
            packet.dts += ticks
        yield packet


def is_seekable(container: InputContainer) -> bool:
    """Return whether a time lies at one place of the file, which is found without what is before.

    Of transport streams all packets are read, in search of a part with times of its own. Program
    streams (.mpg, .vob) time only some of their pictures; the others' times are counted from those
    before them, and are wrong by up to three pictures after a seek.
    """
    if container.format.name not in JOINABLE:
        return True
    if container.format.name == "mpeg":
        return False
    timeline = _Timeline()
    for packet in container.demux([*video_streams(container), *audio_streams(container)]):
        if packet.size:
            timeline.offset_of(packet)
        if len(timeline.offsets) > 1:
            break
    container.seek(0, unsupported_byte_offset=True)
    return len(timeline.offsets) == 1


def _length(packet: av.Packet) -> Fraction:
    """Return for how many seconds a packet is shown or heard."""
    if packet.duration:
        return packet.duration * packet.time_base
    stream = packet.stream
    rate = stream.average_rate if isinstance(stream, VideoStream) else None
    return 1 / Fraction(rate) if rate else Fraction(0)
