"""Frames and samples at any wanted rate, chosen by timestamp on the file's clock.

Nothing here counts frames or samples of the file: a variable or odd frame rate, a track that starts
late or ends early and the padding of audio codecs all come out right because every frame and sample
is placed by the time the container gives it.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain

import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.errors import SoundreelError
from soundreel.media.audio_track import native_blocks
from soundreel.media.clock import clock_zero
from soundreel.media.container import (
    DEFAULT_TRACKS,
    MAX_GAP,
    Tracks,
    open_media,
    require_audio,
    require_video,
    time_jump,
)
from soundreel.media.errors import MediaError, Source
from soundreel.media.framing import Framing
from soundreel.media.picture import Picture, PictureConverter
from soundreel.media.resample import AlignedResampler, resample_blocks
from soundreel.media.skipping import at_rate
from soundreel.media.sound_converter import LAYOUTS, Samples, usual_layout
from soundreel.media.video_track import TimedFrame, timed_frames

MAX_HOLD = Fraction(1, 2)
"""Seconds for which the last frame may stand in for frames wanted after the end."""

MAX_STACK_BYTES = 4 << 30
"""Frames of a clip beyond this many bytes are refused: a clip lies in memory as a whole."""

Waveform = Float32[np.ndarray, "channel sample"]


def read_frames(
    source: Source,
    *,
    frame_rate: Fraction | int,
    start: Fraction | int = 0,
    num_frames: int | None = None,
    framing: Framing | None = None,
    tracks: Tracks = DEFAULT_TRACKS,
    zero: Fraction | None = None,
) -> Iterator[Picture]:
    """Yield the frames shown at `start + k / frame_rate`, each decoded when asked for.

    The frame shown at a time is the last one that begins at or before it (a tick of the container's
    time base is allowed for rounding). The file's clock starts at the first picture that can be
    shown. The last one also stands for up to half a second after the end.

    Args:
        source: a path, or a seekable file open for reading bytes.
        start: seconds from the start of the file's clock.
        num_frames: how many; None for all whose whole display time lies within the video (at least
            one).
        framing: how to cut and scale; None keeps the size of the first picture, upright and with
            square pixels.
        zero: container time that the file's clock calls 0, if `probe` has found it already.

    Yields:
        uint8 arrays `height width 3`, RGB.

    Raises:
        MediaError: if the file cannot be read or ends before the last wanted frame.
        SoundreelError: if a rate or count is not positive, or the framing's box leaves the picture.
    """
    frame_rate, start = Fraction(frame_rate), Fraction(start)
    if frame_rate <= 0 or start < 0 or (num_frames is not None and num_frames <= 0):
        raise SoundreelError(
            "frame_rate and num_frames must be positive and start not negative, got "
            f"frame_rate {frame_rate}, num_frames {num_frames}, start {start}"
        )
    convert = PictureConverter(framing)
    return _read_frames(source, frame_rate, start, num_frames, convert, tracks, zero)


def _read_frames(
    source: Source,
    frame_rate: Fraction,
    start: Fraction,
    num_frames: int | None,
    convert: PictureConverter,
    tracks: Tracks,
    zero: Fraction | None,
) -> Iterator[Picture]:
    count = 0
    held: Picture | None = None
    zero = clock_zero(source, tracks) if zero is None else zero
    with open_media(source) as container:
        stream = require_video(container, source, tracks)
        frames = timed_frames(container, stream, zero, start, at_rate(start, frame_rate))
        for frame, until in _spans(frames, source):
            end = until or frame.end
            hold = MAX_HOLD if until is None and num_frames is not None and start < end else 0
            while count != num_frames and start + count / frame_rate < end + hold:
                if held is not None:
                    yield held
                held = convert(frame.picture, frame.pixel_aspect)
                count += 1
            if count == num_frames:
                break
    complete = start + count / frame_rate <= end
    if held is None or (num_frames is not None and count < num_frames):
        raise MediaError(
            source,
            f"video ends at {float(end):.3f} s, but a frame is wanted at "
            f"{float(start + count / frame_rate):.3f} s",
            "ask for an earlier or shorter piece",
        )
    if num_frames is not None or complete or count == 1:
        yield held


def _spans(
    frames: Iterator[TimedFrame], source: Source
) -> Iterator[tuple[TimedFrame, Fraction | None]]:
    """Pair each frame with the time up to which it is shown; None for the last one."""
    shown = next(frames, None)
    if shown is None:
        raise MediaError(source, "has no frame that can be decoded", "leave it out")
    for frame in frames:
        if frame.start - shown.start > MAX_GAP:
            raise time_jump(source, shown.end, frame.start)
        yield shown, frame.start
        shown = frame
    yield shown, None


def read_audio(
    source: Source,
    *,
    sample_rate: int,
    start: Fraction | int = 0,
    num_samples: int | None = None,
    num_channels: int | None = None,
    tracks: Tracks = DEFAULT_TRACKS,
    is_limit: bool = False,
    zero: Fraction | None = None,
) -> Waveform:
    """Return samples from `floor(start * sample_rate)` on, zero before and after the track.

    Args: as for `iter_audio`; with `num_samples` None all samples to the end of the track, with
        `is_limit` at most `num_samples` up to there.

    Raises:
        MediaError: if the file cannot be read or has no sound.
        SoundreelError: if a rate or count is not positive.
    """
    parts = iter_audio(
        source,
        sample_rate=sample_rate,
        start=start,
        num_samples=None if is_limit else num_samples,
        num_channels=num_channels,
        tracks=tracks,
        zero=zero,
    )
    if is_limit and num_samples is not None:
        parts = _cut(parts, num_samples)
    blocks = list(parts)
    if not blocks:
        raise MediaError(
            source, f"sound ends before {float(start):.3f} s", "ask for an earlier piece"
        )
    return np.concatenate(blocks, axis=1)


def iter_audio(
    source: Source,
    *,
    sample_rate: int,
    start: Fraction | int = 0,
    num_samples: int | None = None,
    num_channels: int | None = None,
    block_samples: int = 1 << 16,
    tracks: Tracks = DEFAULT_TRACKS,
    zero: Fraction | None = None,
) -> Iterator[Waveform]:
    """Yield the same samples as `read_audio` in blocks: a track of any length can be read.

    Args:
        source: a path, or a seekable file open for reading bytes.
        sample_rate: wanted rate in Hz; sample n is taken at `n / sample_rate` on the file's clock.
        start: seconds from the start of the file's clock.
        num_samples: how many; None for all to the end of the track.
        num_channels: 1 or 2 mixes any layout down (or doubles mono); None keeps the track's
            channels. A track whose number of channels changes keeps that of its header.
        block_samples: length of all blocks but the last.
        zero: container time that the file's clock calls 0, if `probe` has found it already.

    Yields:
        float32 arrays `channel sample`, as decoded: full scale is 1, lossy codecs may exceed it.
        Samples that are no number, or beyond all scale, are silence; their number is logged.
    """
    start = Fraction(start)
    if sample_rate <= 0 or start < 0 or (num_samples is not None and num_samples <= 0):
        raise SoundreelError(
            "sample_rate and num_samples must be positive and start not negative, got "
            f"sample_rate {sample_rate}, num_samples {num_samples}, start {start}"
        )
    if num_channels not in (None, 1, 2):
        raise SoundreelError(
            f"num_channels must be 1, 2 or None (as in the file), got {num_channels}"
        )
    first = start.numerator * sample_rate // start.denominator
    samples = _iter_samples(source, sample_rate, first, num_samples, num_channels, tracks, zero)
    return _in_blocks(samples, block_samples)


def _iter_samples(
    source: Source,
    sample_rate: int,
    first: int,
    num_samples: int | None,
    num_channels: int | None,
    tracks: Tracks,
    zero: Fraction | None,
) -> Iterator[Waveform]:
    zero = clock_zero(source, tracks) if zero is None else zero
    with open_media(source) as container:
        stream = require_audio(container, source, tracks)
        kept = usual_layout(stream.codec_context.layout)
        resampler = AlignedResampler(
            native_rate=stream.codec_context.sample_rate,
            sample_rate=sample_rate,
            num_channels=num_channels or stream.codec_context.layout.nb_channels,
            layout=kept if num_channels is None else LAYOUTS[num_channels],
        )
        native_first = resampler.native_start(first)
        blocks = native_blocks(container, stream, zero, native_first, num_channels)
        head = next(blocks, None)
        if head is None:
            raise MediaError(source, "has no sound that can be decoded", "leave it out")
        yield from resample_blocks(chain([head], blocks), resampler, first, num_samples)


def _cut(parts: Iterator[Samples], length: int) -> Iterator[Waveform]:
    """End a track after `length` samples, where it is that long."""
    for samples in parts:
        yield samples[:, :length]
        length -= samples.shape[1]
        if length <= 0:
            return


def _in_blocks(parts: Iterator[Samples], length: int) -> Iterator[Waveform]:
    """Join and cut samples so that all blocks but the last have one length."""
    pending: list[Waveform] = []
    held = 0
    for samples in parts:
        pending.append(samples)
        held += samples.shape[1]
        if held >= length:
            joined = np.concatenate(pending, axis=1)
            whole = held - held % length
            yield from np.split(joined[:, :whole], whole // length, axis=1)
            pending, held = [joined[:, whole:]], held - whole
    if held:
        yield np.concatenate(pending, axis=1)


def stack_frames(
    pictures: Iterator[Picture], source: Source
) -> UInt8[np.ndarray, "frame height width 3"]:
    """Stack all pictures into one array.

    Raises:
        MediaError: if they take more memory than a clip may, naming the source they come from.
    """
    frames = []
    num_bytes = 0
    for picture in pictures:
        frames.append(picture)
        num_bytes += picture.nbytes
        if num_bytes > MAX_STACK_BYTES:
            raise MediaError(
                source,
                f"more than {MAX_STACK_BYTES >> 30} GiB of frames",
                "load a shorter piece (start, duration), fewer frames a second or smaller ones",
            )
    return np.stack(frames)
