"""Turn one source video into prepared clips: what the worker processes do.

A source is decoded once, from its first frame to its last, and never held as a whole: each clip is
encoded and put into the spool folder as soon as its last frame is there.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.data.cuts import find_cuts
from soundreel.data.journal import Skip
from soundreel.data.options import PrepareOptions
from soundreel.data.scan import Source
from soundreel.errors import SoundreelError
from soundreel.media.container import Tracks
from soundreel.media.decode import iter_audio, read_frames
from soundreel.media.encode import encode_mkv_bytes
from soundreel.media.errors import MediaError
from soundreel.media.framing import Framing
from soundreel.media.probe import MediaInfo, probe
from soundreel.types import frame_to_sample

Picture = UInt8[np.ndarray, "height width 3"]
Waveform = Float32[np.ndarray, "channel sample"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedClip:
    """Names a clip in the spool folder, and where in its source it begins."""

    path: Path
    start_s: float
    num_frames: int
    num_samples: int
    num_clipped: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """Holds all that came of one source."""

    clips: tuple[ConvertedClip, ...] = ()
    skipped: tuple[Skip, ...] = ()


def convert(source: Source, options: PrepareOptions, spool: Path) -> Conversion:
    """Convert one source; whatever is wrong with it is in the result, not raised."""
    clips: list[ConvertedClip] = []
    skipped: list[Skip] = []
    reached: Fraction | None = None
    stem = hashlib.sha256(source.name.encode()).hexdigest()[:16]
    framing = framing_of(options)
    try:
        if source.problem:
            return Conversion(skipped=(Skip(reason=source.problem),))
        tracks = tracks_of(options)
        info = probe(source.path, tracks)
        problem = _header_problem(info, options, framing)
        if problem:
            return Conversion(skipped=(Skip(reason=problem),))
        start = _start(source, info)
        cuts: set[int] = set()
        if options.scene_cuts == "split":
            times = find_cuts(source.path, info, start, source.end_s, tracks)
            cuts = {math.ceil((time - start) * options.rate) for time in times}
        sound = _Sound(source, options, start, info.zero)
        shots = _shots(source, options, framing, start, cuts, info.zero)
        for first, pictures in shots:
            begin = start + first / options.rate
            reached = begin + len(pictures) / options.rate
            waveform = sound.take(first, len(pictures))
            num_frames, problem = _judge(options, len(pictures), waveform)
            if problem:
                skipped.append(Skip(reason=problem, start_s=float(begin), end_s=float(reached)))
                continue
            path = spool / f"{stem}-{len(clips):05d}.mkv"
            clips.append(_encode(options, begin, pictures[:num_frames], waveform, path))
    except MediaError as error:
        start_s = None if reached is None else float(reached)
        skipped.append(Skip(reason=error.problem, start_s=start_s))
    if not clips and not skipped:
        skipped.append(Skip(reason="has no frames in the wanted piece"))
    return Conversion(clips=tuple(clips), skipped=tuple(skipped))


def framing_of(options: PrepareOptions) -> Framing:
    """Return how the source pictures fill the prepared frames."""
    return Framing(
        kind=options.crop,
        height=options.height,
        width=options.width,
        box=options.box if options.crop == "box" else None,
    )


def tracks_of(options: PrepareOptions) -> Tracks:
    """Return which tracks of a source are prepared."""
    return Tracks(video=options.video_track, audio=options.audio_track)


def _start(source: Source, info: MediaInfo) -> Fraction:
    """Return where both picture and sound have begun, so that nothing has to be made up."""
    return max(source.start_s or Fraction(0), info.audio_start or Fraction(0), Fraction(0))


def _header_problem(info: MediaInfo, options: PrepareOptions, framing: Framing) -> str:
    """Tell why a source is left out, as far as its header tells; empty if it is not."""
    return _track_problem(info) or _filter_problem(info, options) or _box_problem(info, framing)


def _track_problem(info: MediaInfo) -> str:
    if not info.has_video:
        return "has no video track"
    return "" if info.has_audio else "has no audio track"


def _filter_problem(info: MediaInfo, options: PrepareOptions) -> str:
    if options.min_frame_rate and (info.frame_rate or 0) < options.min_frame_rate:
        rate = "unknown" if info.frame_rate is None else f"{float(info.frame_rate):.3f}"
        return f"frame rate {rate} is below min_frame_rate {options.min_frame_rate:g}"
    if min(info.height, info.width) < options.min_size:
        return f"picture {info.width}x{info.height} is below min_size {options.min_size}"
    return ""


def _box_problem(info: MediaInfo, framing: Framing) -> str:
    try:
        framing.crop(info.height, info.width)
    except SoundreelError as error:
        return str(error)
    return ""


def _shots(
    source: Source,
    options: PrepareOptions,
    framing: Framing,
    start: Fraction,
    cuts: set[int],
    zero: Fraction,
) -> Iterator[tuple[int, list[Picture]]]:
    """Yield the frames of clip after clip and the number of the first; clips end before cuts."""
    held: list[Picture] = []
    count = 0
    for picture in read_frames(
        source.path,
        frame_rate=options.rate,
        start=start,
        framing=framing,
        tracks=tracks_of(options),
        zero=zero,
    ):
        if source.end_s is not None and start + (count + 1) / options.rate > source.end_s:
            break
        if held and (count in cuts or len(held) == options.clip_num_frames):
            yield count - len(held), held
            held = []
        held.append(picture)
        count += 1
    if held:
        yield count - len(held), held


class _Sound:
    """Reads the sound of a source from `start` on, piece by piece as the frames go by."""

    def __init__(
        self, source: Source, options: PrepareOptions, start: Fraction, zero: Fraction
    ) -> None:
        self._options = options
        self._blocks = iter_audio(
            source.path,
            sample_rate=options.sample_rate,
            start=start,
            num_channels=options.num_channels,
            tracks=tracks_of(options),
            zero=zero,
        )
        self._held = np.zeros((options.num_channels, 0), np.float32)
        self._first = 0

    def take(self, first_frame: int, num_frames: int) -> Waveform:
        """Return the sound of these frames, shorter where the track has ended."""
        rates = (self._options.rate, self._options.sample_rate)
        begin = frame_to_sample(first_frame, *rates)
        end = begin + frame_to_sample(num_frames, *rates)
        while self._first + self._held.shape[1] < end:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held = np.concatenate([self._held, block], axis=1)
        piece = self._held[:, begin - self._first : end - self._first]
        self._held = self._held[:, end - self._first :]
        self._first = end
        return piece


def _judge(options: PrepareOptions, num_pictures: int, waveform: Waveform) -> tuple[int, str]:
    """Count the frames that have picture and sound; say why they are left out ("" if not)."""
    num_frames = _whole_frames(waveform.shape[1], num_pictures, options)
    if num_frames < math.ceil(Fraction(str(options.min_duration_s)) * options.rate):
        what = "is" if num_frames == num_pictures else "has sound for"
        duration_s = float(num_frames / options.rate)
        return 0, f"{what} {duration_s:g} s, below min_duration_s {options.min_duration_s:g}"
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    loudness_db = 10 * math.log10(max(power, 1e-20))
    if loudness_db < options.silence_db:
        return 0, f"silent: {loudness_db:.0f} dB, below silence_db {options.silence_db:g}"
    return num_frames, ""


def _encode(
    options: PrepareOptions,
    begin: Fraction,
    pictures: list[Picture],
    waveform: Waveform,
    path: Path,
) -> ConvertedClip:
    """Write the clip losslessly, with sound that lossy codecs carried beyond full scale clipped."""
    num_samples = frame_to_sample(len(pictures), options.rate, options.sample_rate)
    waveform = waveform[:, :num_samples]
    clipped = np.clip(waveform, -1, 1)
    path.write_bytes(encode_mkv_bytes(pictures, clipped, options.rate, options.sample_rate))
    return ConvertedClip(
        path=path,
        start_s=float(begin),
        num_frames=len(pictures),
        num_samples=num_samples,
        num_clipped=int(np.count_nonzero(clipped != waveform)),
    )


def _whole_frames(num_samples: int, num_frames: int, options: PrepareOptions) -> int:
    """Count the frames that have all their sound."""
    while (
        num_frames and frame_to_sample(num_frames, options.rate, options.sample_rate) > num_samples
    ):
        num_frames -= 1
    return num_frames
