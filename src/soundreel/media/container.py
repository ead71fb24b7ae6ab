"""Open a container of any kind and put its tracks on one clock.

The clock of a file starts at the earlier of the first video frame and the first audio sample, so
that whatever lead one track has over the other is kept.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BufferedIOBase

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from soundreel.media.errors import MediaError, Source

REMEDY = "check that the file is complete and plays, or leave it out"

MAX_GAP = Fraction(60)
"""Seconds between two frames or blocks of sound beyond which the times cannot be meant."""


@contextmanager
def open_media(source: Source) -> Iterator[InputContainer]:
    """Open a path or a seekable binary file; every failure inside becomes one MediaError."""
    if isinstance(source, BufferedIOBase):
        source.seek(0)
    try:
        file = source if isinstance(source, BufferedIOBase) else str(source)
        # Titles and names inside files are in any encoding; they do not matter here.
        with av.open(file, mode="r", metadata_errors="replace") as container:
            if video_stream(container) is None and audio_stream(container) is None:
                raise MediaError(source, "has neither a video nor an audio track", REMEDY)
            yield container
    except FileNotFoundError as error:
        raise MediaError(source, "no such file", "check the path") from error
    except (av.error.FFmpegError, OSError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise MediaError(source, f"cannot be read as media ({cause})", REMEDY) from error


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first moving picture; a cover image attached to a sound file is none."""
    for stream in container.streams.video:
        if stream.codec_context and not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The first audio track with a decoder and a known rate and layout."""
    for stream in container.streams.audio:
        context = stream.codec_context
        if context and context.sample_rate > 0 and context.layout.nb_channels > 0:
            return stream
    return None


def tick_of(stream: VideoStream | AudioStream) -> Fraction:
    """Seconds a unit of the stream's timestamps lasts; demuxers leave none unset."""
    return stream.time_base or Fraction(1, 90_000)


def time_jump(source: Source, end: Fraction, start: Fraction) -> MediaError:
    """The error for a track that goes on at `start` after it ended at `end`."""
    jump = f"times jump by {float(start - end):.0f} s after {float(end):.1f} s"
    return MediaError(source, jump, "repair the file or leave it out")


def clock_zero(container: InputContainer) -> Fraction:
    """Time in seconds, on the container's own clock, that the file's clock calls 0."""
    starts = [
        stream.start_time * tick_of(stream)
        for stream in (video_stream(container), audio_stream(container))
        if stream is not None and stream.start_time is not None
    ]
    return min(starts, default=Fraction(0))


def require_video(container: InputContainer, source: Source) -> VideoStream:
    """The video stream, or a MediaError that says there is none."""
    stream = video_stream(container)
    if stream is None:
        raise MediaError(source, "has no video track", "give a file with pictures")
    return stream


def require_audio(container: InputContainer, source: Source) -> AudioStream:
    """The audio stream, or a MediaError that says there is none."""
    stream = audio_stream(container)
    if stream is None:
        raise MediaError(source, "has no audio track", "give a file with sound")
    return stream


def seek(container: InputContainer, stream: VideoStream | AudioStream, time: Fraction) -> bool:
    """Jump to a point from which `time` (container clock) can be decoded; False if it cannot."""
    try:
        container.seek(int(time / tick_of(stream)), stream=stream, backward=True)
    except (av.error.FFmpegError, OSError):
        return False
    return True
