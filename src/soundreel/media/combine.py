"""Put the picture of one file beside the sound of another, copied where the container allows."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import chain
from pathlib import Path
from typing import Literal

import av
from av.container import OutputContainer

from soundreel.media.clock import clock_zero
from soundreel.media.container import (
    local,
    open_media,
    require_audio,
    require_video,
    tick_of,
)
from soundreel.media.decode import iter_audio, read_frames
from soundreel.media.encode import complete_file
from soundreel.media.errors import MediaError
from soundreel.media.full_scale import clipped
from soundreel.media.probe import MediaInfo, probe
from soundreel.media.tracks import (
    AAC_RATES,
    MKV,
    MP4,
    WAV,
    AudioTrack,
    Format,
    VideoTrack,
    mux_options,
    playable,
)

FORMATS = {".mp4": MP4, ".mkv": MKV, ".wav": WAV}
PLAYED_IN_MP4 = frozenset(
    ("h264", "hevc", "av1", "vp9", "mpeg4", "aac", "mp3", "alac", "flac", "opus", "ac3", "eac3")
)
"""Codecs that are copied into MP4; others it can hold are played by few."""
DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class GivenTrack:
    """The picture or the sound of somebody's own file, as it goes into a film.

    The whole track is copied as it is where the container can hold its codec; a part is encoded
    anew, in its own size and rates, because a copy can begin at few places only.

    Attributes:
        start, duration: the part, in seconds on the file's clock; None is to its end.
    """

    path: Path
    start: Fraction = Fraction(0)
    duration: Fraction | None = None

    @property
    def is_whole(self) -> bool:
        return not self.start and self.duration is None


def combine(
    path: Path, picture: GivenTrack | None, sound: GivenTrack | None, *, comment: str = ""
) -> None:
    """Write a file with the picture of one and the sound of another, each on its own file's clock.

    A track is copied as it is where the container can hold it, see `GivenTrack`, and encoded anew
    elsewhere. The file appears only when complete.

    Raises:
        MediaError: a file cannot be read or written.
    """
    kind = FORMATS[path.suffix.lower()]
    with ExitStack() as stack:
        target = stack.enter_context(complete_file(path))
        rates = {}
        for name, track in (("picture", picture), ("sound", sound)):
            if track is not None:
                rates[name] = probe(track.path)
        frame_rate = _frame_rate(rates["picture"]) if picture is not None else DEFAULT_RATE
        sample_rate = rates["sound"].sample_rate if sound is not None else None
        options = mux_options(kind, frame_rate, sample_rate)
        out = stack.enter_context(
            av.open(local(target), "w", format=kind.container, options=options)
        )
        out.flags |= av.container.Flags.bitexact.value
        if comment:
            out.metadata["comment"] = comment
        packets = []
        if picture is not None:
            packets.append(_packets(out, kind, picture, "video", rates["picture"], stack))
        if sound is not None:
            packets.append(_packets(out, kind, sound, "audio", rates["sound"], stack))
        for packet in merge(*packets, key=_time):
            out.mux(packet)


def picture_length(path: Path) -> Fraction:
    """Return when a file's picture ends, in seconds on its clock; no picture is decoded.

    Raises:
        MediaError: the file cannot be read, or has no picture.
    """
    with open_media(path) as container:
        stream = require_video(container, path)
        tick, end = tick_of(stream), Fraction(0)
        usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)
        for packet in container.demux(stream):
            if packet.pts is not None:
                length = packet.duration * tick if packet.duration else usual
                end = max(end, packet.pts * tick + length)
        return end - clock_zero(path)


def _packets(
    out: OutputContainer,
    kind: Format,
    track: GivenTrack,
    modality: Literal["video", "audio"],
    info: MediaInfo,
    stack: ExitStack,
) -> Iterator[av.Packet]:
    """Add a stream for the track to `out` at once, and return its packets."""
    if track.is_whole:
        source = stack.enter_context(open_media(track.path))
        require = require_video if modality == "video" else require_audio
        stream = require(source, track.path)
        codec = stream.codec_context.codec.canonical_name
        if kind is not MP4 or codec in PLAYED_IN_MP4:
            added = out.add_stream_from_template(stream)
            added.metadata.update(stream.metadata)
            added.disposition = stream.disposition
            shift = int(clock_zero(track.path) / tick_of(stream))
            return _copied(source.demux(stream), added, shift)
    if modality == "video":
        return _encoded_pictures(out, kind, track, info)
    return _encoded_sound(out, kind, track, info)


def _copied(
    packets: Iterator[av.Packet], stream: av.stream.Stream, shift: int
) -> Iterator[av.Packet]:
    for packet in packets:
        if packet.dts is not None:
            packet.dts -= shift
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.stream = stream
            yield packet


def _encoded_pictures(
    out: OutputContainer, kind: Format, track: GivenTrack, info: MediaInfo
) -> Iterator[av.Packet]:
    rate = _frame_rate(info)
    count = None if track.duration is None else max(1, round(track.duration * rate))
    pictures = read_frames(track.path, frame_rate=rate, start=track.start, num_frames=count)
    if kind is MP4:
        pictures = (playable(picture) for picture in pictures)
    first = next(pictures)
    encoder = VideoTrack(out, kind, first.shape, rate)

    def packets() -> Iterator[av.Packet]:
        for picture in chain([first], pictures):
            yield from encoder.encode(picture)
        yield from encoder.finish()

    return packets()


def _encoded_sound(
    out: OutputContainer, kind: Format, track: GivenTrack, info: MediaInfo
) -> Iterator[av.Packet]:
    rate = info.sample_rate if kind is not MP4 or info.sample_rate in AAC_RATES else 48_000
    count = None if track.duration is None else max(1, round(track.duration * rate))
    blocks = iter_audio(track.path, sample_rate=rate, start=track.start, num_samples=count)
    if kind is MP4:
        blocks = (clipped(block, track.path) for block in blocks)
    first = next(blocks, None)
    if first is None:
        raise MediaError(track.path, "sound ends before the part", "choose an earlier part")
    encoder = AudioTrack(out, kind, first, rate)

    def packets() -> Iterator[av.Packet]:
        for block in chain([first], blocks):
            yield from encoder.encode(block)
        yield from encoder.finish()

    return packets()


def _frame_rate(info: MediaInfo) -> Fraction:
    return info.frame_rate or DEFAULT_RATE


def _time(packet: av.Packet) -> Fraction:
    return (packet.dts or 0) * (packet.time_base or Fraction(1))
