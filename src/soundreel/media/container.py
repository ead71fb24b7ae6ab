"""Open a container of any kind and choose its tracks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BufferedIOBase
from pathlib import Path
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from soundreel.errors import SoundreelError
from soundreel.media.errors import MediaError, Source, source_name

REMEDY = "check that the file is complete and plays, or leave it out"
LOCAL_PROTOCOLS = "file,crypto,data"
"""Protocols that a local file may refer to: a playlist's segments, but nothing on the network."""

MAX_GAP = Fraction(3600)
"""Seconds between two frames or blocks of sound beyond which the times cannot be meant: slides
stand for minutes, damaged files jump by hours."""

AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracks:
    """Says which tracks of a file are read.

    Attributes:
        video, audio: number among the tracks of that kind, in the file's order, from 1; None takes
            the one that the file marks as its default, else the first.
    """

    video: int | None = None
    audio: int | None = None

    def __post_init__(self) -> None:
        for kind, number in (("video", self.video), ("audio", self.audio)):
            if number is not None and number < 1:
                raise SoundreelError(f"{kind} tracks are numbered from 1, got {number}")


DEFAULT_TRACKS = Tracks()


@contextmanager
def open_media(source: Source) -> Iterator[InputContainer]:
    """Open a path or a seekable binary file; every failure inside becomes one MediaError.

    A name is that of a local file whatever characters it has (FFmpeg alone would take `12:30.mp4`
    for a protocol), unless it is a string with `://` and no such file exists.
    """
    if isinstance(source, BufferedIOBase):
        source.seek(0)
    try:
        file, options = _place(source)
        # Titles and names inside files are in any encoding; they do not matter here.
        with av.open(file, mode="r", metadata_errors="replace", options=options) as container:
            if not video_streams(container) and not audio_streams(container):
                raise MediaError(source, "has neither a video nor an audio track", REMEDY)
            yield container
    except FileNotFoundError as error:
        raise MediaError(source, "no such file", "check the path") from error
    except (av.error.FFmpegError, OSError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise MediaError(source, f"cannot be read as media ({cause})", REMEDY) from error


def _place(source: Source) -> tuple[str | BufferedIOBase, dict[str, str]]:
    known = {"protocol_whitelist": LOCAL_PROTOCOLS}
    if isinstance(source, BufferedIOBase):
        return source, known
    if isinstance(source, str) and "://" in source and not Path(source).exists():
        return source, {}
    return local(source), known


def local(path: str | Path) -> str:
    """Return the name by which FFmpeg opens a file of this path, whatever characters it has."""
    return f"file:{path}"


def name_of(container: InputContainer) -> str:
    """Return the name of the file for messages, as it was given."""
    return source_name(container.name.removeprefix("file:"))


def video_streams(container: InputContainer) -> list[VideoStream]:
    """List the tracks of moving pictures; a cover attached to a sound file is none."""
    return [
        stream
        for stream in container.streams.video
        if stream.codec_context and not stream.disposition & Disposition.attached_pic
    ]


def audio_streams(container: InputContainer) -> list[AudioStream]:
    """List the tracks of sound with a decoder and a known rate and layout."""
    return [
        stream
        for stream in container.streams.audio
        if stream.codec_context
        and stream.codec_context.sample_rate > 0
        and stream.codec_context.layout.nb_channels > 0
    ]


def video_stream(container: InputContainer, tracks: Tracks = DEFAULT_TRACKS) -> VideoStream | None:
    """Return the chosen track of pictures, None if the file has none.

    Raises:
        MediaError: if it has some, but not as many as the wanted number.
    """
    return _chosen(container, video_streams(container), tracks.video, "video")


def audio_stream(container: InputContainer, tracks: Tracks = DEFAULT_TRACKS) -> AudioStream | None:
    """Return the chosen track of sound, None if the file has none.

    Raises:
        MediaError: if it has some, but not as many as the wanted number.
    """
    return _chosen(container, audio_streams(container), tracks.audio, "audio")


def _chosen(
    container: InputContainer, streams: Sequence[AnyStream], number: int | None, kind: str
) -> AnyStream | None:
    if number is not None and streams:
        if number > len(streams):
            raise MediaError(
                name_of(container),
                f"has no {kind} track {number}, its last one is {len(streams)}",
                "`soundreel info` lists the tracks",
            )
        return streams[number - 1]
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    return next(iter([*marked, *streams]), None)


def require_video(
    container: InputContainer, source: Source, tracks: Tracks = DEFAULT_TRACKS
) -> VideoStream:
    """Return the chosen video stream, or raise a MediaError that says there is none."""
    stream = video_stream(container, tracks)
    if stream is None:
        raise MediaError(source, "has no video track", "give a file with pictures")
    return stream


def require_audio(
    container: InputContainer, source: Source, tracks: Tracks = DEFAULT_TRACKS
) -> AudioStream:
    """Return the chosen audio stream, or raise a MediaError that says there is none."""
    stream = audio_stream(container, tracks)
    if stream is None:
        raise MediaError(source, "has no audio track", "give a file with sound")
    return stream


def tick_of(stream: VideoStream | AudioStream) -> Fraction:
    """Return the seconds that a unit of the stream's timestamps lasts."""
    return stream.time_base or Fraction(1, 90_000)


def start_of(stream: VideoStream | AudioStream) -> Fraction:
    """Return the time at which the header says a track begins, in seconds on the container's clock.

    It is no proof: the first picture that can be decoded may come later.
    """
    return (stream.start_time or 0) * tick_of(stream)


def time_jump(source: Source, end: Fraction, start: Fraction) -> MediaError:
    """Make the error for a track that goes on at `start` after it ended at `end`."""
    jump = f"times jump by {float(start - end):.0f} s after {float(end):.1f} s"
    return MediaError(source, jump, "repair the file or leave it out")


def seek(container: InputContainer, stream: VideoStream | AudioStream, time: Fraction) -> bool:
    """Jump to a point from which `time` (container clock) can be decoded; False if it cannot."""
    try:
        container.seek(int(time / tick_of(stream)), stream=stream, backward=True)
    except (av.error.FFmpegError, OSError):
        return False
    return True
