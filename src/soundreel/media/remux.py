"""Move a file's sound in time by copying its packets: nothing is decoded, nothing else changes."""

from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream

from soundreel.media.container import DEFAULT_TRACKS, Tracks, audio_stream, local, open_media
from soundreel.media.encode import complete_file
from soundreel.media.errors import MediaError

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".3gp": "3gp",
    ".mkv": "matroska",
    ".webm": "webm",
    ".ts": "mpegts",
    ".flv": "flv",
}
"""Kinds of file that keep a track's delay; other files are copied into Matroska."""

COPIED = ("video", "audio", "subtitle", "attachment")


def moved_name(path: Path) -> Path:
    """Return the name of the copy: beside the file, of the same kind where that can be written."""
    suffix = path.suffix if path.suffix.lower() in CONTAINERS else ".mkv"
    return path.with_name(f"{path.stem}.fixed{suffix}")


def move_sound(
    source: Path, target: Path, seconds: Fraction, tracks: Tracks = DEFAULT_TRACKS
) -> list[str]:
    """Copy a file with one audio track moved against all others.

    Video, other audio, subtitles, attachments, chapters and tags are kept, packet by packet. Where
    the sound is to come earlier, all the rest is delayed, so that no sound is cut off.

    Args:
        seconds: by how much the sound comes later (positive) or earlier (negative).
        tracks: which audio track it is.

    Returns:
        The tracks that were left out, as no player shows them: `data track 2`.

    Raises:
        MediaError: the file has no sound, cannot be read, or the copy cannot be written.
        FileExistsError: there is a file of the target's name.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already; move it away")
    kind = CONTAINERS[target.suffix.lower()]
    options = {"movflags": "+faststart"} if kind in ("mp4", "mov") else {}
    with open_media(source) as container:
        sound = audio_stream(container, tracks)
        if sound is None:
            raise MediaError(source, "has no audio track", "give a file with sound")
        # Only delays, so that no time becomes negative and is cut off.
        sound_delay, rest_delay = max(seconds, Fraction(0)), max(-seconds, Fraction(0))
        with (
            complete_file(target) as temporary,
            av.open(local(temporary), "w", format=kind, options=options) as copy,
        ):
            _copy(container, copy, {sound.index: sound_delay}, rest_delay)
        return [
            f"{stream.type} track {stream.index}"
            for stream in container.streams
            if stream.type not in COPIED
        ]


def _copy(
    container: InputContainer, copy: OutputContainer, delays: dict[int, Fraction], rest: Fraction
) -> None:
    """Copy all tracks, each with its delay, or with that of the rest."""
    kept = {s.index: _like(copy, s) for s in container.streams if s.type in COPIED}
    copy.metadata.update(container.metadata)
    chapters = container.chapters()
    for chapter in chapters:
        ticks = round(rest / (chapter["time_base"] or Fraction(1, 1000)))
        chapter["start"], chapter["end"] = chapter["start"] + ticks, chapter["end"] + ticks
    copy.set_chapters(chapters)
    for packet in container.demux():
        if packet.size and packet.stream.index in kept:
            ticks = round(delays.get(packet.stream.index, rest) / packet.time_base)
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            packet.stream = kept[packet.stream.index]
            copy.mux(packet)


def _like(copy: OutputContainer, stream: Stream) -> Stream:
    """Add a track that takes the packets of a track of another file."""
    try:
        made = copy.add_stream_from_template(stream)
    except ValueError as error:
        problem = f"{stream.type} track {stream.index} cannot be copied ({error})"
        raise MediaError(copy.name, problem, "convert the file to .mkv first") from error
    made.metadata.update(stream.metadata)
    made.disposition = stream.disposition
    return made
