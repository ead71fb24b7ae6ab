"""Write a film while it is made, of any length in constant memory; keep a track that was given.

Pieces go into a file of their own, `NAME.part.mp4`, in fragments: whatever stops the process, it
plays up to the border of a piece. When the film ends, or is stopped with Ctrl-C, its tracks are
copied without encoding them again into an ordinary file, beside the picture or the sound of
somebody's own file where one was given, and that file takes the name.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Literal

import av
import numpy as np
from av.container import OutputContainer
from jaxtyping import Float32, UInt8

from soundreel.errors import SoundreelError
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
from soundreel.media.probe import MediaInfo, probe
from soundreel.media.tracks import (
    AAC_RATES,
    MKV,
    MP4,
    WAV,
    AudioTrack,
    Format,
    VideoTrack,
    check_rates,
    clipped,
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


class FilmWriter:
    """Write pieces of a film as they come: a context manager with `write`.

    Where the block ends well or by Ctrl-C, the file at `path` holds all pieces that were written;
    after another error it is as it was before.

    Args:
        path: ends in .mp4 (H.264 and AAC, small frames enlarged), .mkv (FFV1 and PCM, every bit
            kept) or .wav (sound alone).
        frame_rate, sample_rate: of the pieces.
        picture, sound: the track of another file that takes the place of the pieces' own.
        num_samples: sound beyond it is left out; None keeps all.

    Raises:
        SoundreelError: the name ends otherwise, or AAC has no such sample rate.
        MediaError: (in the block) the file cannot be written, or a given one cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        frame_rate: Fraction | int,
        sample_rate: int,
        *,
        picture: GivenTrack | None = None,
        sound: GivenTrack | None = None,
        num_samples: int | None = None,
    ) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in FORMATS:
            raise SoundreelError(f"{path}: a film is saved as {', '.join(FORMATS)}, got {suffix!r}")
        check_rates(Fraction(frame_rate), sample_rate)
        if suffix == ".mp4" and sound is None and sample_rate not in AAC_RATES:
            raise SoundreelError(
                f"AAC in MP4 has sample rates {AAC_RATES}, got {sample_rate}; write .mkv"
            )
        self._kind = FORMATS[suffix]
        self._frame_rate, self._sample_rate = Fraction(frame_rate), sample_rate
        self._picture, self._sound, self._limit = picture, sound, num_samples
        self._part = self.path.with_name(f"{self.path.stem}.part{suffix}")
        self._container: OutputContainer | None = None
        self._video: VideoTrack | None = None
        self._audio: AudioTrack | None = None

    def __enter__(self) -> "FilmWriter":
        return self

    def write(
        self,
        frames: UInt8[np.ndarray, "frame height width 3"] | None,
        waveform: Float32[np.ndarray, "channel sample"] | None,
    ) -> None:
        """Append a piece. All pieces have the tracks, sizes and channels of the first.

        Raises:
            SoundreelError: there is nothing to write, or pieces differ.
            MediaError: the file cannot be written.
        """
        frames = None if self._picture is not None or self._kind is WAV else frames
        waveform = None if self._sound is not None else waveform
        if self._limit is not None and waveform is not None:
            written = 0 if self._audio is None else self._audio.count
            waveform = waveform[:, : max(0, self._limit - written)]
        if frames is None and waveform is None:
            raise SoundreelError(f"{self.path}: there is neither a frame nor a sample to write")
        try:
            self._append(frames, waveform)
        except (av.error.FFmpegError, OSError) as error:
            raise _cannot_write(self.path, error) from error

    def _append(
        self,
        frames: UInt8[np.ndarray, "frame height width 3"] | None,
        waveform: Float32[np.ndarray, "channel sample"] | None,
    ) -> None:
        if self._kind is MP4:
            frames = None if frames is None else np.stack([playable(frame) for frame in frames])
            waveform = None if waveform is None else clipped(waveform, self.path)
        if self._container is None:
            self._open(frames, waveform)
        container = self._container
        assert container is not None, "the part file is open"
        if frames is not None and self._video is not None:
            for number, picture in enumerate(frames):
                container.mux(self._video.encode(picture, is_key=number == 0))
        if waveform is not None and self._audio is not None:
            container.mux(self._audio.encode(waveform))
        self._file.hand_over()

    def _open(
        self,
        frames: UInt8[np.ndarray, "frame height width 3"] | None,
        waveform: Float32[np.ndarray, "channel sample"] | None,
    ) -> None:
        self._file = _WholeFragments(self._part)
        options = {}
        if self._kind is MP4:
            options = {"movflags": "frag_keyframe+delay_moov+default_base_moof"}
            options |= {"movie_timescale": str(self._sample_rate), "flush_packets": "1"}
            if frames is None:
                options["frag_duration"] = "1000000"
        container = av.open(self._file, "w", format=self._kind.container, options=options)
        container.flags |= av.container.Flags.bitexact.value
        if frames is not None:
            shape, rate = frames.shape[1:], self._frame_rate
            # Key frames are set where pieces begin and nowhere else, and little is looked ahead.
            options = (
                {"x264-params": "scenecut=0:keyint=infinite:rc-lookahead=8"}
                if self._kind is MP4
                else {}
            )
            self._video = VideoTrack(container, self._kind, shape, rate, **options)
        if waveform is not None:
            self._audio = AudioTrack(container, self._kind, waveform, self._sample_rate)
        self._container = container

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._container is None:
                return
            for track in (self._video, self._audio):
                if track is not None:
                    self._container.mux(track.finish())
            self._container.close()
            self._file.close()
            if kind is None or issubclass(kind, KeyboardInterrupt):
                made = GivenTrack(self._part)
                picture = self._picture or (made if self._video is not None else None)
                sound = self._sound or (made if self._audio is not None else None)
                combine(self.path, picture, sound)
        except (av.error.FFmpegError, OSError) as problem:
            raise _cannot_write(self.path, problem) from problem
        finally:
            self._part.unlink(missing_ok=True)


def combine(path: Path, picture: GivenTrack | None, sound: GivenTrack | None) -> None:
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


def _cannot_write(path: Path, error: Exception) -> MediaError:
    cause = getattr(error, "strerror", None) or str(error)
    return MediaError(path, f"cannot be written ({cause})", "check the folder and the free space")


class _WholeFragments:
    """A file that gets what a muxer writes in one go for each piece of the film."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._pending: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pending.append(bytes(data))
        return len(data)

    def hand_over(self) -> None:
        if self._pending:
            self._file.write(b"".join(self._pending))
            self._pending.clear()

    def close(self) -> None:
        self.hand_over()
        self._file.close()
