"""Write frames and samples: MP4 to play, Matroska to keep every bit, WAV for sound alone.

A file appears under its name only when it is complete.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.errors import SoundreelError
from soundreel.files import writing_file
from soundreel.media.container import local
from soundreel.media.errors import MediaError
from soundreel.media.full_scale import clipped
from soundreel.media.tracks import (
    AAC_RATES,
    AUDIO_BLOCK,
    MKV,
    MP4,
    WAV,
    AudioTrack,
    Format,
    VideoTrack,
    check_rates,
    mux_options,
    playable,
)

Picture = UInt8[np.ndarray, "height width 3"]
Waveform = Float32[np.ndarray, "channel sample"]

MAX_MKV_FRAME_RATE = 500
"""Matroska counts milliseconds; beyond this, frame times could not be told apart."""


def write_mp4(
    path: str | Path,
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction | int,
    sample_rate: int,
    *,
    comment: str = "",
    enlarge: int = 1,
) -> None:
    """Write H.264 (yuv420p) and AAC: plays everywhere.

    Sides that are odd get one more row or column, a copy of the last. Sound beyond full scale is
    clipped, and that is logged where it may be heard.

    Args:
        frames: RGB, all of one size, one after the other (so an iterator need not fit in memory),
            or None for sound alone.
        waveform: full scale 1; None for a silent video.
        comment: stored in the file's metadata.
        enlarge: write each pixel as a block of so many rows and columns. Colour is stored at half
            the resolution of brightness: blocks of 2 keep every pixel's colour.

    Raises:
        SoundreelError: if there is nothing to write, `enlarge` is less than 1, or the sample rate
            is none that AAC has.
        MediaError: if the file cannot be written.
    """
    if waveform is not None and sample_rate not in AAC_RATES:
        raise SoundreelError(
            f"AAC in MP4 has sample rates {AAC_RATES}, got {sample_rate}; resample, or write .mkv"
        )
    if enlarge < 1:
        raise SoundreelError(f"enlarge is a whole number from 1, got {enlarge}")
    enlarged = None if frames is None else (playable(frame, enlarge) for frame in frames)
    limited = None if waveform is None else clipped(waveform, path)
    with complete_file(path) as target:
        _mux(local(target), MP4, enlarged, limited, Fraction(frame_rate), sample_rate, comment)


def write_mkv(
    path: str | Path,
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction | int,
    sample_rate: int,
    *,
    comment: str = "",
) -> None:
    """Write FFV1 (RGB) and 32-bit float PCM in Matroska: read back bit by bit as it was written.

    Args: as for `write_mp4`, for frames at least 2 pixels wide and any sample rate.

    Raises:
        SoundreelError: if there is nothing to write, or the frame rate exceeds 500.
        MediaError: if the file cannot be written.
    """
    _check_mkv_frame_rate(frame_rate)
    with complete_file(path) as target:
        _mux(local(target), MKV, frames, waveform, Fraction(frame_rate), sample_rate, comment)


def encode_mkv_bytes(
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction | int,
    sample_rate: int,
) -> bytes:
    """Return the bytes of the file that `write_mkv` would write; equal input gives equal bytes."""
    _check_mkv_frame_rate(frame_rate)
    buffer = io.BytesIO()
    _mux(buffer, MKV, frames, waveform, Fraction(frame_rate), sample_rate)
    return buffer.getvalue()


def write_wav(path: str | Path, waveform: Waveform, sample_rate: int) -> None:
    """Write 32-bit float PCM in a WAV file, bit by bit."""
    with complete_file(path) as target:
        _mux(local(target), WAV, None, waveform, Fraction(1), sample_rate)


def _mux(
    target: str | io.BytesIO,
    kind: Format,
    frames: Iterable[Picture] | None,
    waveform: Waveform | None,
    frame_rate: Fraction,
    sample_rate: int,
    comment: str = "",
) -> None:
    """Encode both tracks side by side, so that neither waits in memory for the other."""
    if frames is None and waveform is None:
        raise SoundreelError("there is neither a frame nor a sample to write")
    check_rates(frame_rate, sample_rate)
    pictures = iter(() if frames is None else frames)
    first = next(pictures, None)
    if frames is not None and first is None:
        raise SoundreelError("there is no frame to write; give None as frames for sound alone")
    options = mux_options(kind, frame_rate, None if waveform is None else sample_rate)
    with av.open(target, "w", format=kind.container, options=options) as container:
        container.flags |= av.container.Flags.bitexact.value
        if comment:
            container.metadata["comment"] = comment
        video = None if first is None else VideoTrack(container, kind, first.shape, frame_rate)
        audio = None if waveform is None else AudioTrack(container, kind, waveform, sample_rate)
        if first is not None and video is not None:
            for picture in chain([first], pictures):
                container.mux(video.encode(picture))
                if waveform is not None and audio is not None:
                    due = video.count * sample_rate * frame_rate.denominator
                    due = due // frame_rate.numerator // AUDIO_BLOCK * AUDIO_BLOCK
                    container.mux(audio.encode(waveform[:, audio.count : due]))
            container.mux(video.finish())
        if waveform is not None and audio is not None:
            container.mux(audio.encode(waveform[:, audio.count :]))
            container.mux(audio.finish())


def _check_mkv_frame_rate(frame_rate: Fraction | int) -> None:
    if frame_rate > MAX_MKV_FRAME_RATE:
        raise SoundreelError(
            f"Matroska holds up to {MAX_MKV_FRAME_RATE} frames/s, got {frame_rate}"
        )


@contextmanager
def complete_file(path: str | Path) -> Iterator[Path]:
    """Give a name to write to; the file gets its own when the block ends well, else vanishes."""
    path = Path(path)
    try:
        with writing_file(path) as temporary:
            yield temporary
    except (av.error.FFmpegError, OSError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            path, f"cannot be written ({cause})", "check the folder and the free space"
        ) from error
