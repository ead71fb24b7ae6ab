"""What a media file says of itself, without decoding it."""

from dataclasses import dataclass
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from soundreel.media.container import (
    audio_stream,
    clock_zero,
    open_media,
    tick_of,
    video_stream,
)
from soundreel.media.errors import Source, source_name
from soundreel.media.picture import upright_turn

MAX_FRAME_RATE = 1000
FRAME_RATE_TAG = "FRAME_RATE"
"""Tag with the exact rate: Matroska itself tells the duration of a frame in whole nanoseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaInfo:
    """The header of a media file. Headers can be wrong: only decoding tells what is there.

    Attributes:
        duration: seconds from the start of the clock to the end of the last track; None if not
            told. height, width: of the upright picture, after the rotation flag; 0 without video.
            rotation: degrees counter-clockwise by which the stored picture is turned: 0, 90, 180,
            270. frame_rate: frames per second on average; None without video or if not told.
            video_start, audio_start: when each track begins on the file's clock; None if absent.
            sample_rate: in Hz; 0 without audio. num_channels: 0 without audio.
    """

    path: str
    duration: Fraction | None
    has_video: bool
    has_audio: bool
    height: int = 0
    width: int = 0
    rotation: int = 0
    frame_rate: Fraction | None = None
    video_codec: str = ""
    video_start: Fraction | None = None
    sample_rate: int = 0
    num_channels: int = 0
    audio_codec: str = ""
    audio_start: Fraction | None = None


def probe(source: Source) -> MediaInfo:
    """Read the header of a file of any container FFmpeg knows.

    Args:
        source: a path, or a seekable file open for reading bytes.

    Raises:
        MediaError: if the file is absent, is no media file or has no track that can be decoded.
    """
    with open_media(source) as container:
        zero = clock_zero(container)
        video, audio = video_stream(container), audio_stream(container)
        turn = _rotation(container, video)
        size = (0, 0) if video is None else (video.codec_context.height, video.codec_context.width)
        return MediaInfo(
            path=source_name(source),
            duration=_duration(container, zero),
            has_video=video is not None,
            has_audio=audio is not None,
            height=size[turn % 180 // 90],
            width=size[1 - turn % 180 // 90],
            rotation=turn,
            frame_rate=None if video is None else average_frame_rate(video),
            video_codec="" if video is None else video.codec_context.name,
            video_start=None if video is None else _start(video) - zero,
            sample_rate=0 if audio is None else audio.codec_context.sample_rate,
            num_channels=0 if audio is None else audio.codec_context.layout.nb_channels,
            audio_codec="" if audio is None else audio.codec_context.name,
            audio_start=None if audio is None else _start(audio) - zero,
        )


def average_frame_rate(stream: VideoStream) -> Fraction | None:
    """Frames per second as the header tells; a guess if it tells none or an absurd one."""
    for told in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if told is not None and 0 < told <= MAX_FRAME_RATE:
            tagged = _tagged_rate(stream.metadata.get(FRAME_RATE_TAG, ""))
            is_same = tagged is not None and abs(tagged / told - 1) < Fraction(1, 100_000)
            return tagged if is_same else Fraction(told)
    return None


def _tagged_rate(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _duration(container: InputContainer, zero: Fraction) -> Fraction | None:
    """End of the longest track; the container's own figure where tracks tell none."""
    ends = [
        _start(stream) + stream.duration * tick_of(stream) - zero
        for stream in (video_stream(container), audio_stream(container))
        if stream is not None and stream.duration
    ]
    if ends:
        return max(ends)
    return Fraction(container.duration, 1_000_000) if container.duration else None


def _start(stream: VideoStream | AudioStream) -> Fraction:
    return (stream.start_time or 0) * tick_of(stream)


def _rotation(container: InputContainer, stream: VideoStream | None) -> int:
    """The rotation flag lies in the decoded frames: decode one, if there is one."""
    if stream is None:
        return 0
    try:
        frame = next(iter(container.decode(stream)), None)
    except (av.error.FFmpegError, OSError):
        return 0
    return 0 if frame is None else upright_turn(frame.rotation)
