"""Encode pictures and sound into the tracks of an output: H.264 and AAC, FFV1 and PCM."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream
from jaxtyping import Float32, UInt8

from soundreel.errors import SoundreelError
from soundreel.media.picture import filter_chain
from soundreel.media.probe import FRAME_RATE_TAG
from soundreel.media.sound_converter import LAYOUTS

Picture = UInt8[np.ndarray, "height width 3"]
Waveform = Float32[np.ndarray, "channel sample"]

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
AUDIO_BLOCK = 1024
SMPTE_170M, LIMITED_RANGE = 6, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """Container and codecs with their options."""

    container: str
    audio: str
    audio_options: dict[str, str] = field(default_factory=dict)
    video: str = ""
    pixels: str = ""
    video_options: dict[str, str] = field(default_factory=dict)


MP4 = Format(
    container="mp4",
    audio="aac",
    audio_options={"b": "160k"},
    video="libx264",
    pixels="yuv420p",
    video_options={"crf": "17", "preset": "medium"},
)
MKV = Format(
    container="matroska",
    audio="pcm_f32le",
    video="ffv1",
    pixels="bgr0",
    video_options={"level": "3", "slicecrc": "1", "g": "1"},
)
WAV = Format(container="wav", audio="pcm_f32le")


def check_rates(frame_rate: Fraction, sample_rate: int) -> None:
    """Raise `ValueError` unless both rates are positive."""
    if frame_rate <= 0 or sample_rate <= 0:
        raise SoundreelError(f"rates must be positive, got {frame_rate} frames/s, {sample_rate} Hz")


def mux_options(kind: Format, frame_rate: Fraction, sample_rate: int | None) -> dict[str, str]:
    """Return a container's options; a sample rate of None stands for no sound.

    MP4 tells lengths in units of the movie's time scale; the usual 1 ms is too coarse.
    """
    if kind.container != "mp4":
        return {}
    return {"movflags": "+faststart", "movie_timescale": str(sample_rate or frame_rate.numerator)}


class VideoTrack:
    """Encodes pictures one after the other, numbered on the clock of the frame rate.

    Attributes:
        count: pictures encoded so far.

    Raises:
        SoundreelError: the codec cannot hold pictures of this shape.
    """

    def __init__(
        self,
        container: OutputContainer,
        kind: Format,
        shape: tuple[int, ...],
        frame_rate: Fraction,
        **options: str,
    ) -> None:
        if kind.video == "ffv1" and shape[1] < 2:
            raise SoundreelError(f"FFV1 holds pictures at least 2 pixels wide, got {shape[1]}")
        self.stream = cast(
            VideoStream,
            container.add_stream(
                kind.video, rate=frame_rate, options={**kind.video_options, **options}
            ),
        )
        self.stream.metadata[FRAME_RATE_TAG] = str(frame_rate)
        context = self.stream.codec_context
        context.height, context.width, _ = shape
        context.pix_fmt = kind.pixels
        context.thread_count = 1
        if kind.pixels == "yuv420p":
            context.colorspace, context.color_range = SMPTE_170M, LIMITED_RANGE
        self._shape, self._pixels, self._time_base = shape, kind.pixels, 1 / frame_rate
        self._graph = None
        self.count = 0

    def encode(self, picture: Picture, *, is_key: bool = False) -> list[av.Packet]:
        """Return the packets that are ready.

        Args:
            is_key: playing and copying can start at this picture.

        Raises:
            SoundreelError: the picture is of another size than the first.
        """
        if picture.shape != self._shape:
            raise SoundreelError(f"frames differ in size: {self._shape}, then {picture.shape}")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.time_base, frame.pts = self._time_base, self.count
        if self._graph is None:
            self._graph = filter_chain(frame, [("scale", _TO_CODEC), ("format", self._pixels)])
        self._graph.push(frame)
        converted = cast(av.VideoFrame, self._graph.pull())
        converted.time_base, converted.pts = self._time_base, self.count
        if is_key:
            converted.pict_type = PictureType.I
        self.count += 1
        return self.stream.encode(converted)

    def finish(self) -> list[av.Packet]:
        """Return the packets that were held back."""
        return self.stream.encode(None)


_TO_CODEC = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix=smpte170m"


class AudioTrack:
    """Encodes sound block after block.

    Args:
        waveform: any part of the sound; tells the number of channels.

    Attributes:
        count: samples encoded so far.

    Raises:
        SoundreelError: there are no samples, or more channels than there are layouts for.
    """

    def __init__(
        self, container: OutputContainer, kind: Format, waveform: Waveform, sample_rate: int
    ) -> None:
        num_channels, num_samples = waveform.shape
        if num_channels not in LAYOUTS or num_samples == 0:
            raise SoundreelError(
                f"sound has 1 to {max(LAYOUTS)} channels of samples, got {waveform.shape}"
            )
        layout = LAYOUTS[num_channels]
        options = kind.audio_options
        added = container.add_stream(kind.audio, rate=sample_rate, layout=layout, options=options)
        self.stream = cast(AudioStream, added)
        self.count = 0

    def encode(self, part: Waveform) -> list[av.Packet]:
        """Return the packets that are ready when these samples follow those before."""
        context, packets = self.stream.codec_context, []
        for begin in range(0, part.shape[1], AUDIO_BLOCK):
            block = part[:, begin : begin + AUDIO_BLOCK]
            packed = np.ascontiguousarray(block.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=context.layout.name)
            frame.sample_rate = context.sample_rate
            frame.time_base = Fraction(1, frame.sample_rate)
            frame.pts = self.count
            packets += self.stream.encode(frame)
            self.count += block.shape[1]
        return packets

    def finish(self) -> list[av.Packet]:
        """Return the packets that were held back."""
        return self.stream.encode(None)


def playable(
    picture: Picture, enlarge: int = 1
) -> UInt8[np.ndarray, "playable_height playable_width 3"]:
    """Return the picture as MP4 files hold it, see `write_mp4`."""
    if enlarge > 1:
        picture = picture.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    odd_rows, odd_columns = picture.shape[0] % 2, picture.shape[1] % 2
    return np.pad(picture, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
