"""Leave out the decoding of pictures that nobody asks for and no other picture refers to.

At a lower frame rate most pictures of a file are not wanted. Those that others refer to have to be
decoded all the same; the rest, such as most B pictures of H.264, need not, and what is decoded is
the same bit by bit. Which picture is wanted depends on when the next one is shown, and packets come
in another order than pictures, so packets are read a little ahead.
"""

from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import ceil

import av
from av.video.stream import VideoStream

from soundreel.media.container import tick_of

AHEAD = 8
"""Packets that are read ahead. If pictures are shown later than so many packets on, more of them
are decoded than need be."""
NON_REFERENCE = ("h264",)
"""Codecs whose packets say for certain that nothing refers to their picture, and whose decoders
then pass over it. HEVC's say so of their own temporal layer alone; VP9's and AV1's decoders decode
all."""
PROGRESSIVE = 1
"""FFmpeg's `AV_FIELD_PROGRESSIVE`: a packet holds a whole picture, not one of its two fields."""

IsWanted = Callable[[Fraction, Fraction], bool]
"""Says whether a picture is wanted that is shown from one time on up to another, in seconds."""


def at_rate(start: Fraction, frame_rate: Fraction) -> IsWanted:
    """Want the pictures that are shown at `start + k / frame_rate`, k from 0 on."""

    def is_wanted(begin: Fraction, until: Fraction) -> bool:
        return start + max(0, ceil((begin - start) * frame_rate)) / frame_rate < until

    return is_wanted


def earliest(begin: Fraction, tick: Fraction) -> Fraction:
    """Return the earliest time for which a picture that begins at `begin` is the one wanted.

    Its own time and that of the first picture, which is the clock's 0, are both rounded to a tick
    (Matroska's and Flash's is a millisecond).
    """
    half = tick / 2
    return begin - min(half, Fraction(1, 200)) - min(half, Fraction(1, 2000))


class Skipping:
    """Decides for each packet of a stream whether its picture is decoded.

    Args:
        zero: container time that the file's clock calls 0.

    Attributes:
        is_on: while False, all pictures are decoded. Whoever reads the pictures switches it off
            where each of them matters, as after damage.
    """

    def __init__(self, stream: VideoStream, zero: Fraction, is_wanted: IsWanted) -> None:
        self._context = stream.codec_context
        self._zero, self._tick, self._is_wanted = zero, tick_of(stream), is_wanted
        self._is_intra = self._context.codec.intra_only
        name, fields = self._context.name, self._context.field_order
        self._can_skip = self._is_intra or (name in NON_REFERENCE and fields == PROGRESSIVE)
        self.is_on = False

    def decode(self, packets: Iterator[av.Packet]) -> Iterator[Callable[[], list[av.VideoFrame]]]:
        """Yield, for every packet, a call that decodes it if it is needed.

        Packets that are read when the file ends or breaks off are all decoded.
        """
        if not self._can_skip:
            yield from (packet.decode for packet in packets)
            return
        known: deque[av.Packet] = deque()
        times: deque[int | None] = deque(maxlen=2 * AHEAD)
        broken: Exception | None = None
        try:
            for packet in packets:
                known.append(packet)
                times.append(packet.pts)
                if len(known) > AHEAD:
                    yield self._decoder(known.popleft(), times)
        except (av.error.FFmpegError, OSError) as error:
            broken = error
        yield from (self._decoder(packet, ()) for packet in known)
        if broken is not None:
            raise broken

    def _decoder(
        self, packet: av.Packet, times: "deque[int | None] | tuple[()]"
    ) -> Callable[[], list[av.VideoFrame]]:
        def decode() -> list[av.VideoFrame]:
            is_needed = not self.is_on or self._is_needed(packet, times)
            if not is_needed and self._is_intra:
                return []
            self._context.skip_frame = "DEFAULT" if is_needed else "NONREF"
            return packet.decode()

        return decode

    def _is_needed(self, packet: av.Packet, times: "deque[int | None] | tuple[()]") -> bool:
        """Return whether the picture is wanted, as far as is known.

        Args:
            times: of the packets before and after it.
        """
        known = [time for time in times if time is not None]
        if packet.pts is None or packet.is_corrupt or len(known) < len(times):
            return True
        until = min((time for time in known if time > packet.pts), default=None)
        if until is None:
            return True
        begin, end = (time * self._tick - self._zero for time in (packet.pts, until))
        return self._is_wanted(earliest(begin, self._tick), earliest(end, self._tick))
