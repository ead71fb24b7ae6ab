"""Put the tracks of a file on one clock.

A file's clock starts at the first picture that can be shown, in a file without pictures at the
first sample. So neither the priming of sound codecs, of which every container makes something else,
nor a start that cannot be decoded moves the pictures on the grid of wanted times. Sound before the
first picture has negative times.
"""

from fractions import Fraction

from av.audio.stream import AudioStream

from soundreel.media.container import (
    DEFAULT_TRACKS,
    Tracks,
    audio_stream,
    open_media,
    start_of,
    video_stream,
)
from soundreel.media.errors import Source
from soundreel.media.video_track import TimedFrame, first_shown


def clock_zero(source: Source, tracks: Tracks = DEFAULT_TRACKS) -> Fraction:
    """Return the time, in seconds on the container's own clock, that the file's clock calls 0.

    The file is opened for this alone: its first picture has to be decoded, since headers and
    timestamps tell where a track begins, not where it can be seen.

    Raises:
        MediaError: if the file cannot be opened, or has no such track.
    """
    with open_media(source) as container:
        video = video_stream(container, tracks)
        first = None if video is None else first_shown(container, video)
        return zero_from(first, audio_stream(container, tracks))


def zero_from(first: TimedFrame | None, audio: AudioStream | None) -> Fraction:
    """Return the clock's 0 from the first picture, timed by the container, and the sound track."""
    if first is not None:
        return first.begin
    return Fraction(0) if audio is None else start_of(audio)
