"""Describe a media file by its header and its first picture."""

from dataclasses import dataclass
from fractions import Fraction

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from soundreel.media.clock import zero_from
from soundreel.media.container import (
    DEFAULT_TRACKS,
    Tracks,
    audio_stream,
    audio_streams,
    open_media,
    start_of,
    tick_of,
    video_stream,
    video_streams,
)
from soundreel.media.errors import Source, source_name
from soundreel.media.orientation import Orientation, orientation_of
from soundreel.media.picture import upright_size
from soundreel.media.video_track import TimedFrame, first_shown

MAX_FRAME_RATE = 1000
FRAME_RATE_TAG = "FRAME_RATE"
"""Tag with the exact rate: Matroska itself tells the duration of a frame in whole nanoseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackInfo:
    """One track of a file, as its header tells.

    Attributes:
        kind: "video" or "audio".
        number: among the tracks of its kind, in the file's order, from 1.
        is_read: it is the one that is read: asked for, or marked as default, or the first.
    """

    kind: str
    number: int
    codec: str
    language: str
    title: str
    is_read: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaInfo:
    """Holds what a file tells: its header, and its first picture.

    Headers can be wrong: only decoding tells what is there. The clock starts at the first picture
    that can be shown; without pictures at the first sample.

    Attributes:
        duration: seconds from the start of the clock to the end of the last track; None if not
            told.
        height, width: of the first picture, upright and with square pixels; 0 without video.
        stored_height, stored_width: of the picture in the file, before both.
        rotation: degrees counter-clockwise by which the stored picture is turned to be upright: 0,
            90, 180, 270.
        is_mirrored: left and right of the stored picture are exchanged before the turn.
        frame_rate: frames per second on average; None without video or if not told.
        sample_rate: in Hz; 0 without audio.
        num_channels: 0 without audio.
        audio_start: seconds on the clock at which the sound begins; None without audio.
        zero: container time, in seconds, that the clock calls 0, as `clock_zero` finds it.
        tracks: all tracks of pictures and sound.
    """

    path: str
    duration: Fraction | None
    has_video: bool
    has_audio: bool
    height: int = 0
    width: int = 0
    stored_height: int = 0
    stored_width: int = 0
    rotation: int = 0
    is_mirrored: bool = False
    frame_rate: Fraction | None = None
    video_codec: str = ""
    sample_rate: int = 0
    num_channels: int = 0
    audio_codec: str = ""
    audio_start: Fraction | None = None
    zero: Fraction = Fraction(0)
    tracks: tuple[TrackInfo, ...] = ()


def probe(source: Source, tracks: Tracks = DEFAULT_TRACKS) -> MediaInfo:
    """Read the header and the first picture of a file of any container FFmpeg knows.

    Args:
        source: a path, or a seekable file open for reading bytes.
        tracks: which tracks are asked about.

    Raises:
        MediaError: if the file is absent, is no media file, has no track that can be decoded, or
            not as many as asked for.
    """
    with open_media(source) as container:
        video, audio = video_stream(container, tracks), audio_stream(container, tracks)
        listed = _listed(container, video, audio)
        first = None if video is None else first_shown(container, video)
        zero = zero_from(first, audio)
        orientation = Orientation.UPRIGHT if first is None else orientation_of(first.picture)
        stored = _stored_size(video, first)
        aspect = Fraction(1) if first is None else first.pixel_aspect
        height, width = upright_size(*stored, aspect, orientation) if video else stored
        return MediaInfo(
            path=source_name(source),
            duration=_duration(container, video, audio, zero),
            has_video=video is not None,
            has_audio=audio is not None,
            height=height,
            width=width,
            stored_height=stored[0],
            stored_width=stored[1],
            rotation=orientation.rotation,
            is_mirrored=orientation.is_mirrored,
            frame_rate=None if video is None else average_frame_rate(video),
            video_codec="" if video is None else video.codec_context.name,
            sample_rate=0 if audio is None else audio.codec_context.sample_rate,
            num_channels=0 if audio is None else audio.codec_context.layout.nb_channels,
            audio_codec="" if audio is None else audio.codec_context.name,
            audio_start=None if audio is None else start_of(audio) - zero,
            zero=zero,
            tracks=listed,
        )


def _listed(
    container: InputContainer, video: VideoStream | None, audio: AudioStream | None
) -> tuple[TrackInfo, ...]:
    read = {stream.index for stream in (video, audio) if stream is not None}
    kinds = (("video", video_streams(container)), ("audio", audio_streams(container)))
    return tuple(
        TrackInfo(
            kind=kind,
            number=number,
            codec=stream.codec_context.name,
            language=stream.language or "",
            title=stream.metadata.get("title", ""),
            is_read=stream.index in read,
        )
        for kind, streams in kinds
        for number, stream in enumerate(streams, 1)
    )


def _stored_size(video: VideoStream | None, first: TimedFrame | None) -> tuple[int, int]:
    """Return height and width of the first picture; of the header where none can be decoded."""
    if first is not None:
        return first.picture.height, first.picture.width
    return (0, 0) if video is None else (video.codec_context.height, video.codec_context.width)


def average_frame_rate(stream: VideoStream) -> Fraction | None:
    """Return frames per second as the header tells; a guess if it tells none or an absurd one."""
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


def _duration(
    container: InputContainer,
    video: VideoStream | None,
    audio: AudioStream | None,
    zero: Fraction,
) -> Fraction | None:
    """Return the end of the longest track; the container's own figure where tracks tell none."""
    ends = [
        start_of(stream) + stream.duration * tick_of(stream) - zero
        for stream in (video, audio)
        if stream is not None and stream.duration
    ]
    if ends:
        return max(ends)
    return Fraction(container.duration, 1_000_000) if container.duration else None
