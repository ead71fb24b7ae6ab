"""Write frames and samples: MP4 to play, Matroska to keep every bit, WAV for sound alone.

A file appears under its name only when it is complete.
"""

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from jaxtyping import Float32, UInt8

from soundreel.files import writing_file
from soundreel.media.audio_track import LAYOUTS
from soundreel.media.errors import MediaError
from soundreel.media.picture import filter_chain
from soundreel.media.probe import FRAME_RATE_TAG

logger = logging.getLogger(__name__)

Picture = UInt8[np.ndarray, "height width 3"]
Waveform = Float32[np.ndarray, "channel sample"]

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
MIN_MP4_SIDE = 128
"""MP4 frames whose shorter side is smaller are enlarged by a whole factor."""
MAX_MKV_FRAME_RATE = 500
"""Matroska counts milliseconds; beyond this, frame times could not be told apart."""
AUDIO_BLOCK = 1024
SMPTE_170M, LIMITED_RANGE = 6, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Format:
    """Container and codecs with their options."""

    container: str
    audio: str
    audio_options: dict[str, str] = field(default_factory=dict)
    video: str = ""
    pixels: str = ""
    video_options: dict[str, str] = field(default_factory=dict)


_MP4 = _Format(
    container="mp4",
    audio="aac",
    audio_options={"b": "160k"},
    video="libx264",
    pixels="yuv420p",
    video_options={"crf": "17", "preset": "medium"},
)
_MKV = _Format(
    container="matroska",
    audio="pcm_f32le",
    video="ffv1",
    pixels="bgr0",
    video_options={"level": "3", "slicecrc": "1", "g": "1"},
)
_WAV = _Format(container="wav", audio="pcm_f32le")


def write_mp4(
    path: str | Path,
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction | int,
    sample_rate: int,
) -> None:
    """H.264 (yuv420p) and AAC: plays everywhere.

    Frames whose shorter side is under 128 pixels are enlarged by the smallest whole factor that
    reaches it, each pixel a block: players and hardware decoders refuse or blur tiny pictures, and
    halved chroma would take the colour from them. Sides that are odd after that get one more row or
    column, a copy of the last. Sound beyond full scale is clipped and the share logged.

    Args:
        frames: RGB, all of one size, one after the other (so an iterator need not fit in memory),
            or None for sound alone.
        waveform: full scale 1; None for a silent video.

    Raises:
        ValueError: if there is nothing to write, or the sample rate is none that AAC has.
        MediaError: if the file cannot be written.
    """
    if waveform is not None and sample_rate not in AAC_RATES:
        raise ValueError(
            f"AAC in MP4 has sample rates {AAC_RATES}, got {sample_rate}; resample, or write .mkv"
        )
    enlarged = None if frames is None else (_playable(frame) for frame in frames)
    clipped = None if waveform is None else _clipped(waveform, path)
    with complete_file(path) as target:
        _mux(str(target), _MP4, enlarged, clipped, Fraction(frame_rate), sample_rate)


def write_mkv(
    path: str | Path,
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction | int,
    sample_rate: int,
) -> None:
    """FFV1 (RGB) and 32-bit float PCM in Matroska: read back bit by bit as it was written.

    Args: as for `write_mp4`, for frames at least 2 pixels wide and any sample rate.

    Raises:
        ValueError: if there is nothing to write, or the frame rate exceeds 500.
        MediaError: if the file cannot be written.
    """
    _check_mkv_frame_rate(frame_rate)
    with complete_file(path) as target:
        _mux(str(target), _MKV, frames, waveform, Fraction(frame_rate), sample_rate)


def encode_mkv_bytes(
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction | int,
    sample_rate: int,
) -> bytes:
    """The bytes of the file that `write_mkv` would write; equal input gives equal bytes."""
    _check_mkv_frame_rate(frame_rate)
    buffer = io.BytesIO()
    _mux(buffer, _MKV, frames, waveform, Fraction(frame_rate), sample_rate)
    return buffer.getvalue()


def write_wav(path: str | Path, waveform: Waveform, sample_rate: int) -> None:
    """32-bit float PCM in a WAV file, bit by bit."""
    with complete_file(path) as target:
        _mux(str(target), _WAV, None, waveform, Fraction(1), sample_rate)


def _mux(
    target: str | io.BytesIO,
    kind: _Format,
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction,
    sample_rate: int,
) -> None:
    """Encode both tracks side by side, so that neither waits in memory for the other."""
    if frames is None and waveform is None:
        raise ValueError("there is neither a frame nor a sample to write")
    if frame_rate <= 0 or sample_rate <= 0:
        raise ValueError(f"rates must be positive, got {frame_rate} frames/s, {sample_rate} Hz")
    pictures = iter(() if frames is None else frames)
    first = next(pictures, None)
    if frames is not None and first is None:
        raise ValueError("there is no frame to write; give None as frames for sound alone")
    if kind.video == "ffv1" and first is not None and first.shape[1] < 2:
        raise ValueError(f"FFV1 holds pictures at least 2 pixels wide, got {first.shape[1]}")
    options = {}
    if kind.container == "mp4":
        # MP4 tells lengths in units of the movie's time scale; the usual 1 ms is too coarse.
        scale = sample_rate if waveform is not None else frame_rate.numerator
        options = {"movflags": "+faststart", "movie_timescale": str(scale)}
    with av.open(target, "w", format=kind.container, options=options) as container:
        container.flags |= av.container.Flags.bitexact.value
        video = None if first is None else _add_video(container, kind, first, frame_rate)
        audio = None if waveform is None else _add_audio(container, kind, waveform, sample_rate)
        written = 0
        if first is not None and video is not None:
            convert = _Encoder(container, video, kind.pixels, frame_rate)
            convert.write(first)
            for picture in pictures:
                if picture.shape != first.shape:
                    raise ValueError(f"frames differ in size: {first.shape}, then {picture.shape}")
                convert.write(picture)
                if waveform is not None and audio is not None:
                    due = convert.count * sample_rate * frame_rate.denominator
                    due = due // frame_rate.numerator // AUDIO_BLOCK * AUDIO_BLOCK
                    part = waveform[:, written : max(due, written)]
                    written = _write_audio(container, audio, part, written)
            container.mux(video.encode(None))
        if waveform is not None and audio is not None:
            _write_audio(container, audio, waveform[:, written:], written)
            container.mux(audio.encode(None))


def _add_video(
    container: OutputContainer, kind: _Format, picture: Picture, frame_rate: Fraction
) -> VideoStream:
    stream = cast(
        VideoStream,
        container.add_stream(kind.video, rate=frame_rate, options=kind.video_options),
    )
    stream.metadata[FRAME_RATE_TAG] = str(frame_rate)
    context = stream.codec_context
    context.height, context.width, _ = picture.shape
    context.pix_fmt = kind.pixels
    context.thread_count = 1
    if kind.pixels == "yuv420p":
        context.colorspace, context.color_range = SMPTE_170M, LIMITED_RANGE
    return stream


def _add_audio(
    container: OutputContainer, kind: _Format, waveform: Waveform, sample_rate: int
) -> AudioStream:
    num_channels, num_samples = waveform.shape
    if num_channels not in LAYOUTS or num_samples == 0:
        raise ValueError(f"sound has 1 to {max(LAYOUTS)} channels of samples, got {waveform.shape}")
    stream = container.add_stream(
        kind.audio, rate=sample_rate, layout=LAYOUTS[num_channels], options=kind.audio_options
    )
    return cast(AudioStream, stream)


class _Encoder:
    """Converts pictures to the codec's pixels and numbers them."""

    def __init__(
        self, container: OutputContainer, stream: VideoStream, pixels: str, frame_rate: Fraction
    ) -> None:
        self.container, self.stream, self.pixels = container, stream, pixels
        self.time_base = 1 / frame_rate
        self.graph = None
        self.count = 0

    def write(self, picture: Picture) -> None:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.time_base, frame.pts = self.time_base, self.count
        if self.graph is None:
            self.graph = filter_chain(frame, [("scale", _TO_CODEC), ("format", self.pixels)])
        self.graph.push(frame)
        converted = cast(av.VideoFrame, self.graph.pull())
        converted.time_base, converted.pts = self.time_base, self.count
        self.container.mux(self.stream.encode(converted))
        self.count += 1


_TO_CODEC = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix=smpte170m"


def _write_audio(
    container: OutputContainer, stream: AudioStream, part: Waveform, start: int
) -> int:
    """Encode the samples that follow `start`; returns where they end."""
    for begin in range(0, part.shape[1], AUDIO_BLOCK):
        packed = np.ascontiguousarray(part[:, begin : begin + AUDIO_BLOCK].T).reshape(1, -1)
        layout = stream.codec_context.layout.name
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = stream.codec_context.sample_rate
        frame.time_base = Fraction(1, frame.sample_rate)
        frame.pts = start + begin
        container.mux(stream.encode(frame))
    return start + part.shape[1]


def _check_mkv_frame_rate(frame_rate: Fraction | int) -> None:
    if frame_rate > MAX_MKV_FRAME_RATE:
        raise ValueError(f"Matroska holds up to {MAX_MKV_FRAME_RATE} frames/s, got {frame_rate}")


def _playable(picture: Picture) -> UInt8[np.ndarray, "playable_height playable_width 3"]:
    factor = -(-MIN_MP4_SIDE // min(picture.shape[:2]))
    if factor > 1:
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    odd_rows, odd_columns = picture.shape[0] % 2, picture.shape[1] % 2
    return np.pad(picture, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")


def _clipped(waveform: Waveform, path: str | Path) -> Waveform:
    beyond = float((np.abs(waveform) > 1).mean())
    if beyond > 0:
        logger.warning("%s: %.3f %% of the samples exceed full scale, clipped", path, 100 * beyond)
    return np.clip(waveform, -1, 1)


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """A name to write to; the file gets its own name when the block ends well, else it vanishes."""
    path = Path(path)
    try:
        with writing_file(path) as temporary:
            yield temporary
    except (av.error.FFmpegError, OSError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            path, f"cannot be written ({cause})", "check the folder and the free space"
        ) from error
