"""Decoded sound of changing format, rate and layout into float32 samples of one kind."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from jaxtyping import Float32

from soundreel.media.container import name_of
from soundreel.media.errors import MediaError

logger = logging.getLogger(__name__)

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""Layouts that channels without names are taken for, and written as, by their number."""

OPTIONS = {"filter_size": "64", "rematrix_maxval": "1.0"}
"""Twice the default filter length: a tone is off by 1e-6 instead of 2e-5. Mixes stay in scale."""

MAX_SAMPLE = np.float32(1e9)
"""Samples beyond this (full scale is 1) and those that are no number are damage, not sound."""

Samples = Float32[np.ndarray, "channel sample"]


def unpacked(frame: av.AudioFrame) -> Samples:
    """Return the samples of a frame of packed float32. (PyAV's planar arrays break at eight.)"""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T


def packed(samples: Samples, layout: str, rate: int, first: int = 0) -> av.AudioFrame:
    """Return float32 samples as a frame whose time is that of sample `first`."""
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples.T, np.float32).reshape(1, -1), format="flt", layout=layout
    )
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first
    return frame


def usual_layout(layout: av.AudioLayout) -> str:
    """Return the name of a layout; of channels without names the usual one of their number."""
    is_named = all(channel.name not in ("NONE", "UNK", "") for channel in layout.channels)
    if (is_named and layout.name != "binaural") or layout.nb_channels not in LAYOUTS:
        return layout.name
    return LAYOUTS[layout.nb_channels]


class SoundConverter:
    """Converts the frames of a track, whatever they turn into on the way, to one rate and layout.

    The rate is the one that the header tells. Channels are mixed by libswresample's matrix for the
    two layouts, but mono becomes stereo by repetition.

    Args:
        num_channels: 1 or 2 mixes any layout; None keeps the header's.
    """

    def __init__(self, stream: AudioStream, num_channels: int | None) -> None:
        self.rate = stream.codec_context.sample_rate
        kept = usual_layout(stream.codec_context.layout)
        self.layout = kept if num_channels is None else LAYOUTS[num_channels]
        self.num_channels = av.AudioLayout(self.layout).nb_channels
        self._name = name_of(cast(InputContainer, stream.container))
        self._kind: tuple[str, str, int] | None = None
        self._damaged = 0

    def push(self, frame: av.AudioFrame) -> Iterator[tuple[Fraction | None, Samples]]:
        """Convert one frame; yield container times in seconds, where told, and samples."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            yield from self._drain()
            self._kind = kind
            self._plain = AudioResampler(format="flt")
            self._begin(usual_layout(frame.layout), frame.sample_rate)
        time = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
        for plain in self._plain.resample(frame):
            yield from self._convert(time, self._repaired(unpacked(plain)))
            time = None

    def flush(self) -> Iterator[tuple[Fraction | None, Samples]]:
        """Yield what is left at the end of the track, and log what was damaged."""
        yield from self._drain()
        if self._damaged:
            logger.warning(
                "%s: %d samples that are no number, or beyond all scale, are taken for silence",
                self._name,
                self._damaged,
            )

    def _begin(self, layout: str, rate: int) -> None:
        """Prepare for frames of another layout or rate."""
        self._source = (layout, rate)
        mono = layout == "mono" and self.num_channels == 2
        self._mixed = "mono" if mono else self.layout
        self._converter: AudioResampler | None = None
        if (self._mixed, self.rate) != self._source:
            self._converter = AudioResampler(
                format="flt", layout=self._mixed, rate=self.rate, options=OPTIONS
            )
        self._zero: Fraction | None = None
        self._taken = 0

    def _convert(
        self, time: Fraction | None, samples: Float32[np.ndarray, "native_channel sample"]
    ) -> Iterator[tuple[Fraction | None, Samples]]:
        if self._converter is None:
            yield time, self._spread(samples)
            return
        layout, rate = self._source
        # The converter counts samples; the times of what it gives follow from those it was fed.
        if time is not None:
            self._zero = time - Fraction(self._taken, rate)
        frame = packed(samples, layout, rate, self._taken)
        self._taken += samples.shape[1]
        yield from self._timed(frame)

    def _timed(self, frame: av.AudioFrame | None) -> Iterator[tuple[Fraction | None, Samples]]:
        assert self._converter is not None
        try:
            converted = self._converter.resample(frame)
        except av.error.FFmpegError as error:
            raise MediaError(
                self._name,
                f"its sound, {self._source[0]}, cannot be mixed to {self._mixed}",
                "mix it with another program, or leave it out",
            ) from error
        for out in converted:
            time = None
            if self._zero is not None and out.pts is not None:
                time = self._zero + out.pts * (out.time_base or Fraction(1, self.rate))
            yield time, self._spread(unpacked(out))

    def _drain(self) -> Iterator[tuple[Fraction | None, Samples]]:
        """Yield what a converter of the rate still holds."""
        if self._kind is not None and self._converter is not None:
            yield from self._timed(None)

    def _spread(self, samples: Float32[np.ndarray, "mixed_channel sample"]) -> Samples:
        if len(samples) == self.num_channels:
            return samples
        return np.repeat(samples, self.num_channels, axis=0)

    def _repaired(self, samples: Samples) -> Samples:
        """Return the samples with silence in place of NaN, infinity and absurd values."""
        good = np.abs(samples) < MAX_SAMPLE
        if good.all():
            return samples
        self._damaged += int(samples.size - np.count_nonzero(good))
        return np.where(good, samples, np.float32(0))
