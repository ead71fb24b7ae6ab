"""Sample-rate conversion by libswresample, independent of where reading begins.

A converter started in the middle of a track must give the same samples as one started at its
beginning. So it is started on a native sample whose time is also the time of a wanted sample, early
enough for its filter to have settled, and what it gives before the first wanted sample is dropped.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import gcd

import numpy as np
from av.audio.resampler import AudioResampler
from jaxtyping import Float32

from soundreel.errors import SoundreelError
from soundreel.media.audio_track import Block
from soundreel.media.sound_converter import OPTIONS, Samples, packed, unpacked

SETTLE = 64
"""Native samples of lead per wanted one: the filter's reach."""
MAX_FILL = 1 << 16


class AlignedResampler:
    """Converts a stream of native samples, fed without gaps from `native_start` on."""

    def __init__(
        self, *, native_rate: int, sample_rate: int, num_channels: int = 1, layout: str = "mono"
    ) -> None:
        self.native_rate = native_rate
        self.sample_rate = sample_rate
        self.layout = layout
        self.num_channels = num_channels
        self._common = gcd(native_rate, sample_rate)
        self._fed = 0
        self._converter: AudioResampler | None = None
        if native_rate != sample_rate:
            self._converter = AudioResampler(
                format="flt", layout=layout, rate=sample_rate, options=OPTIONS
            )

    def native_start(self, first: int) -> int:
        """Return the native sample to start on so that wanted sample `first` comes out settled."""
        return self._start_block(first) * (self.native_rate // self._common)

    def output_start(self, first: int) -> int:
        """Return the first sample that comes out when fed from `native_start(first)`."""
        return self._start_block(first) * (self.sample_rate // self._common)

    def _start_block(self, first: int) -> int:
        if self._converter is None:
            return first
        lead = SETTLE * max(1, -(-self.native_rate // self.sample_rate))
        native = Fraction(first * self.native_rate, self.sample_rate) - lead
        return native // (self.native_rate // self._common)

    def output_index(self, native: int) -> int:
        """Return the first wanted sample at or after the time of a native one."""
        return -(-native * self.sample_rate // self.native_rate)

    def push(self, samples: Samples) -> Iterator[Samples]:
        """Feed native samples and take what is ready."""
        if self._converter is None:
            yield samples
            return
        frame = packed(samples, self.layout, self.native_rate, self._fed)
        self._fed += samples.shape[1]
        yield from map(unpacked, self._converter.resample(frame))

    def flush(self) -> Iterator[Samples]:
        """Yield what remains when the stream goes on in silence."""
        if self._converter is None:
            return
        lead = 2 * SETTLE * max(1, -(-self.native_rate // self.sample_rate))
        yield from self.push(np.zeros((self.num_channels, lead), np.float32))
        yield from map(unpacked, self._converter.resample(None))


def resample_blocks(
    blocks: Iterator[Block], resampler: AlignedResampler, first: int, count: int | None
) -> Iterator[Samples]:
    """Yield wanted samples `first` to `first + count` of a track of blocks; silence around it.

    Args:
        count: None for all to the end of the track.
    """
    position = resampler.output_start(first)
    end = None if count is None else first + count
    for samples in _converted(blocks, resampler, first):
        begin = max(first - position, 0)
        stop = samples.shape[1] if end is None else min(samples.shape[1], end - position)
        position += samples.shape[1]
        if stop > begin:
            yield samples[:, begin:stop]
        if end is not None and position >= end:
            return
    position = max(position, first)
    while end is not None and position < end:
        length = min(MAX_FILL, end - position)
        yield np.zeros((resampler.num_channels, length), np.float32)
        position += length


def _converted(
    blocks: Iterator[Block], resampler: AlignedResampler, first: int
) -> Iterator[Samples]:
    """Yield everything that the converter gives, cut where the track ends."""
    position = resampler.native_start(first)
    given = resampler.output_start(first)
    for index, samples in blocks:
        while position < index:
            length = min(MAX_FILL, index - position)
            silence = np.zeros((resampler.num_channels, length), np.float32)
            for out in resampler.push(silence):
                given += out.shape[1]
                yield out
            position += length
        new = samples[:, position - index :]
        if new.shape[1]:
            for out in resampler.push(new):
                given += out.shape[1]
                yield out
            position += new.shape[1]
    last = resampler.output_index(position)
    for out in resampler.flush():
        if given < last:
            yield out[:, : last - given]
        given += out.shape[1]


def resample_waveform(
    waveform: Samples, *, native_rate: int, sample_rate: int, num_samples: int
) -> Float32[np.ndarray, "channel resampled"]:
    """Resample a whole waveform, silence beyond its end; each channel by itself."""
    channels = []
    for channel in waveform:
        resampler = AlignedResampler(native_rate=native_rate, sample_rate=sample_rate)
        blocks = iter([(0, channel[None])])
        channels.append(np.concatenate(list(resample_blocks(blocks, resampler, 0, num_samples)), 1))
    return np.concatenate(channels)


def with_channels(
    waveform: Samples, num_channels: int
) -> Float32[np.ndarray, "wanted_channel sample"]:
    """Return the mean of all channels as one, or one channel repeated.

    Raises:
        SoundreelError: for any other change of their number.
    """
    if num_channels == len(waveform):
        return waveform
    if num_channels == 1:
        return waveform.mean(axis=0, keepdims=True)
    if len(waveform) == 1:
        return waveform.repeat(num_channels, axis=0)
    raise SoundreelError(f"cannot make {num_channels} channels of {len(waveform)}; give 1")
