"""Hold a clip as people have it: frames and sound on one clock, every length exact.

Frame k is shown from `k / frame_rate` on, sample n is taken at `n / sample_rate`.

What reads, writes or resamples imports PyAV when it is called: models can make clips without it.
"""

import logging
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from math import floor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from soundreel.errors import SoundreelError
from soundreel.media.errors import Source
from soundreel.media.framing import Framing
from soundreel.media.full_scale import clipped
from soundreel.media.pixels import frames_to_video, video_to_frames
from soundreel.types import AV, ClipSpec, frame_to_sample

logger = logging.getLogger(__name__)

Seconds = Fraction | float | int

DEFAULT_FRAME_RATE = Fraction(25)
DEFAULT_SAMPLE_RATE = 16_000
MAX_EARLY_SOUND_S = 0.1
"""Sound before the first picture is left out; of more than this the log tells."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames and waveform of one piece of video; either may be absent (`None`).

    Attributes:
        frames: uint8 RGB.
        waveform: float32, full scale 1.
        frame_rate, sample_rate: frames per second (any rational) and Hz.

    Where both are there, the sound lasts as long as the frames, to the sample: `num_frames *
    sample_rate / frame_rate` samples, rounded down or up.

    Raises:
        SoundreelError: if both are absent or empty, a rate is not positive, or the lengths differ.
    """

    frames: UInt8[np.ndarray, "frame height width 3"] | None
    waveform: Float32[np.ndarray, "channel sample"] | None
    frame_rate: Fraction = DEFAULT_FRAME_RATE
    sample_rate: int = DEFAULT_SAMPLE_RATE
    frame_type = np.uint8
    frames_of = staticmethod(video_to_frames)

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame_rate", Fraction(self.frame_rate))
        if self.frame_rate <= 0 or self.sample_rate <= 0:
            raise SoundreelError(
                f"rates must be positive, got {self.frame_rate}, {self.sample_rate}"
            )
        if self.frames is None and self.waveform is None:
            raise SoundreelError("a clip needs frames, a waveform or both")
        if self.frames is not None:
            _check_array("frames", self.frames, self.frame_type, "frame height width 3", 4)
            if self.frames.shape[-1] != 3:
                raise SoundreelError(f"frames must be RGB, got shape {self.frames.shape}")
        if self.waveform is not None:
            _check_array("waveform", self.waveform, np.float32, "channel sample", 2)
        if self.frames is not None and self.waveform is not None:
            length = self.num_frames * self.sample_rate / self.frame_rate
            if abs(self.num_samples - length) >= 1:
                raise SoundreelError(
                    f"{self.num_frames} frames last {float(length):.1f} samples, got "
                    f"{self.num_samples}; cut or pad the waveform to {floor(length)} samples"
                )

    def __repr__(self) -> str:
        shape = None if self.frames is None else self.frames.shape
        sound = None if self.waveform is None else self.waveform.shape
        rates = f"{self.frame_rate} frames/s, {self.sample_rate} Hz"
        return f"Clip({self.duration_s:g} s, frames {shape}, waveform {sound}, {rates})"

    def _repr_html_(self) -> str:
        """Return a player of the clip, which notebooks show in the place of its text."""
        from soundreel.media.notebook import player

        return player(self.frames, self.waveform, self.frame_rate, self.sample_rate)

    @property
    def num_frames(self) -> int:
        """Count the frames; 0 without any."""
        return 0 if self.frames is None else len(self.frames)

    @property
    def num_samples(self) -> int:
        """Count the samples of a channel; 0 without a waveform."""
        return 0 if self.waveform is None else self.waveform.shape[1]

    @property
    def duration(self) -> Fraction:
        """Return the seconds, exact: of the frames where there are any, else of the waveform."""
        if self.frames is not None:
            return self.num_frames / self.frame_rate
        return Fraction(self.num_samples, self.sample_rate)

    @property
    def duration_s(self) -> float:
        return float(self.duration)

    @classmethod
    def load(
        cls,
        source: Source,
        *,
        start: Seconds = 0,
        duration: Seconds | None = None,
        frame_rate: Fraction | int | None = None,
        sample_rate: int | None = None,
        num_channels: int | None = None,
        framing: Framing | None = None,
        video_track: int | None = None,
        audio_track: int | None = None,
    ) -> "Clip":
        """Read a piece of a media file, of any container FFmpeg knows.

        Its clock starts at the first picture that can be shown; sound before that is left out.

        Args:
            source: a path, or a seekable file open for reading bytes.
            start, duration: the piece in seconds; None reads to the end (of the video, where there
                is one; sound that ends before is followed by silence).
            frame_rate, sample_rate, num_channels: None keeps the file's.
            framing: how to cut and scale the pictures; None keeps the size of the first, upright
                and with square pixels.
            video_track, audio_track: their number in the file, from 1; None takes the one that is
                marked as default, else the first.

        Raises:
            MediaError: if the file cannot be read, the piece reaches beyond its end, or there is no
                such track.
            SoundreelError: if the duration holds no frame.
        """
        wanted = None if duration is None else Fraction(duration)
        if wanted is not None and wanted <= 0:
            raise SoundreelError(f"duration must be positive, got {duration} s")
        rates, numbers = (frame_rate, sample_rate, num_channels), (video_track, audio_track)
        return cls._read(
            source, Fraction(start), wanted, rates=rates, framing=framing, numbers=numbers
        )

    @classmethod
    def load_beginning(
        cls,
        source: Source,
        duration: Seconds,
        *,
        framing: Framing | None = None,
        video_track: int | None = None,
        audio_track: int | None = None,
    ) -> "Clip":
        """Read the first `duration` seconds of a media file, or all of it where it is shorter.

        No more than that is decoded, and what the file says of its length does not matter.

        Raises:
            MediaError: if the file cannot be read.
        """
        return cls._read(
            source,
            Fraction(0),
            Fraction(duration),
            rates=(None, None, None),
            framing=framing,
            numbers=(video_track, audio_track),
            is_limit=True,
        )

    @classmethod
    def _read(
        cls,
        source: Source,
        start: Fraction,
        duration: Fraction | None,
        *,
        rates: tuple[Fraction | int | None, int | None, int | None],
        framing: Framing | None,
        numbers: tuple[int | None, int | None],
        is_limit: bool = False,
    ) -> "Clip":
        """Read a piece; with `is_limit` the file may be shorter than the duration."""
        from soundreel.media.container import Tracks
        from soundreel.media.decode import read_audio, read_frames, stack_frames
        from soundreel.media.probe import probe

        tracks = Tracks(video=numbers[0], audio=numbers[1])
        info = probe(source, tracks)
        frame_rate = Fraction(rates[0] or info.frame_rate or DEFAULT_FRAME_RATE)
        sample_rate = rates[1] or info.sample_rate or DEFAULT_SAMPLE_RATE
        frames = waveform = num_frames = num_samples = None
        if duration is not None:
            num_frames, num_samples = round(duration * frame_rate), round(duration * sample_rate)
        if info.has_video:
            pictures = read_frames(
                source,
                frame_rate=frame_rate,
                start=start,
                num_frames=None if is_limit else num_frames,
                framing=framing,
                tracks=tracks,
                zero=info.zero,
            )
            frames = stack_frames(islice(pictures, num_frames), source)
            num_samples = max(1, frame_to_sample(len(frames), frame_rate, sample_rate))
        if info.has_audio:
            waveform = read_audio(
                source,
                sample_rate=sample_rate,
                start=start,
                num_samples=num_samples,
                num_channels=rates[2],
                tracks=tracks,
                is_limit=is_limit and not info.has_video,
                zero=info.zero,
            )
            early = -float(info.audio_start or 0)
            if info.has_video and start == 0 and early > MAX_EARLY_SOUND_S:
                logger.warning("%s: left out %.2f s of sound before the picture", info.path, early)
        return cls(frames, waveform, frame_rate, sample_rate)

    def save(self, path: str | Path, *, comment: str = "", enlarge: int = 1) -> None:
        """Write a file of the kind its name ends in; it appears only when complete.

        `.mp4` (H.264 + AAC) plays everywhere; `.mkv` (FFV1 + PCM) keeps every bit; `.wav` keeps the
        sound alone.

        Args:
            comment: stored in the metadata of a video file.
            enlarge: write each pixel of an `.mp4` as a block of so many rows and columns.

        Raises:
            SoundreelError: if such a file cannot hold the clip, or is not to be enlarged.
            MediaError: if the file cannot be written.
        """
        from soundreel.media.encode import write_mkv, write_mp4, write_wav

        suffix = Path(path).suffix.lower()
        if suffix == ".wav" and enlarge == 1:
            if self.waveform is None:
                raise SoundreelError(f"{path}: the clip has no sound; save it as .mp4 or .mkv")
            write_wav(path, self.waveform, self.sample_rate)
        elif suffix == ".mp4" or (suffix == ".mkv" and enlarge == 1):
            write = partial(write_mp4, enlarge=enlarge) if suffix == ".mp4" else write_mkv
            rates = (self.frame_rate, self.sample_rate)
            write(path, self.frames, self.waveform, *rates, comment=comment)
        else:
            kinds = ".mp4, .mkv or .wav" if enlarge == 1 else ".mp4 where it is enlarged"
            raise SoundreelError(f"{path}: a clip is saved as {kinds}, got {suffix!r}")

    def cut(self, start_s: Seconds, duration_s: Seconds) -> "Clip":
        """Cut out a piece, to the nearest frame (without frames: to the nearest sample).

        Frames a to b own the samples `frame_to_sample(a)` to `frame_to_sample(b)`, so that pieces
        that follow each other share no sample and leave none out.

        Raises:
            SoundreelError: if the piece is empty or not within the clip.
        """
        rate = self.sample_rate if self.frames is None else self.frame_rate
        total = self.num_samples if self.frames is None else self.num_frames
        begin = round(Fraction(start_s) * rate)
        end = begin + round(Fraction(duration_s) * rate)
        if not 0 <= begin < end <= total:
            raise SoundreelError(
                f"a piece of {float(duration_s):.3f} s from {float(start_s):.3f} s is empty or not "
                f"within the clip of {self.duration_s:.3f} s"
            )
        frames, waveform = self.frames, self.waveform
        if frames is None:
            first, last = begin, end
        else:
            frames = frames[begin:end]
            first, last = (
                frame_to_sample(frame, self.frame_rate, self.sample_rate) for frame in (begin, end)
            )
        waveform = None if waveform is None else waveform[:, first:last]
        return replace(self, frames=frames, waveform=waveform)

    def resample(
        self,
        *,
        frame_rate: Fraction | int | None = None,
        sample_rate: int | None = None,
        size: tuple[int, int] | None = None,
        num_channels: int | None = None,
    ) -> "Clip":
        """Return the same clip at other rates or sizes; what is None stays.

        A frame of the new rate is the old frame shown at its time; frames whose display time is not
        wholly within the clip are dropped, with their sound.

        Args:
            size: height and width; the largest centred part of that shape is scaled to it.
            num_channels: 1 (the mean of the channels) or, from mono, 2.

        Raises:
            SoundreelError: the clip is shorter than one new frame, or the channels cannot be had.
        """
        from soundreel.media.picture import reframe
        from soundreel.media.resample import resample_waveform, with_channels

        frame_rate = self.frame_rate if frame_rate is None else Fraction(frame_rate)
        sample_rate = self.sample_rate if sample_rate is None else sample_rate
        if frame_rate <= 0 or sample_rate <= 0:
            raise SoundreelError(f"rates must be positive, got {frame_rate} and {sample_rate}")
        frames, waveform = self.frames, self.waveform
        if frames is not None:
            count = floor(self.duration * frame_rate)
            if count == 0:
                raise SoundreelError(
                    f"{self.duration_s:.3f} s hold no frame at {frame_rate} frames/s"
                )
            shown = [floor(k * self.frame_rate / frame_rate) for k in range(count)]
            frames = frames[shown]
            if size is not None and size != frames.shape[1:3]:
                framing = Framing(height=size[0], width=size[1])
                frames = np.stack([reframe(frame, framing) for frame in frames])
            num_samples = frame_to_sample(count, frame_rate, sample_rate)
        else:
            num_samples = floor(self.duration * sample_rate)
        if waveform is not None:
            if num_channels is not None:
                waveform = with_channels(waveform, num_channels)
            if sample_rate != self.sample_rate:
                waveform = resample_waveform(
                    waveform,
                    native_rate=self.sample_rate,
                    sample_rate=sample_rate,
                    num_samples=num_samples,
                )
            waveform = waveform[:, :num_samples]
        return type(self)(frames, waveform, frame_rate, sample_rate)

    def to_av(self, spec: ClipSpec) -> AV:
        """Return the first `spec.num_frames` frames and their sound as tensors with a batch of one.

        The clip must have the rates, size and channels of `spec` (`resample` gives them) and at
        least its length. Video becomes `1 frame channel height width`, audio `1 channel sample`,
        float32 in [-1, 1]; samples beyond full scale are clipped, and counted in the log
        where it may be heard.

        Raises:
            SoundreelError: if a rate, size or length does not fit.
        """
        video = audio = None
        if self.frames is not None:
            _require("frame_rate", self.frame_rate, spec.frame_rate)
            _require("height, width", self.frames.shape[1:3], (spec.height, spec.width))
            _require("frames", min(self.num_frames, spec.num_frames), spec.num_frames)
            video = frames_to_video(self.frames[: spec.num_frames])[None]
        if self.waveform is not None:
            _require("sample_rate", self.sample_rate, spec.sample_rate)
            _require("channels", self.waveform.shape[0], spec.num_channels)
            _require("samples", min(self.num_samples, spec.num_samples), spec.num_samples)
            audio = torch.from_numpy(clipped(self.waveform[:, : spec.num_samples]))[None]
        return AV(video, audio)

    @classmethod
    def from_av(cls, av: AV, frame_rate: Fraction | int, sample_rate: int) -> "list[Clip]":
        """Make one clip of each batch entry of model tensors; values beyond [-1, 1] are clipped.

        Video bytes are `round((x + 1) * 127.5)`: what `to_av` was given comes back.
        """
        clips = []
        for index in range(av.batch_size):
            frames = None if av.video is None else cls.frames_of(av.video[index])
            sound = None if av.audio is None else av.audio[index].detach().to("cpu", torch.float32)
            waveform = None if sound is None else clipped(sound.numpy())
            clips.append(cls(frames, waveform, Fraction(frame_rate), sample_rate))
        return clips


def _check_array(name: str, array: np.ndarray, dtype: type, axes: str, ndim: int) -> None:
    if array.dtype != dtype or array.ndim != ndim or 0 in array.shape:
        raise SoundreelError(
            f"{name} must be a {np.dtype(dtype)} array '{axes}' that is not empty, "
            f"got {array.dtype} {array.shape}"
        )


def _require(name: str, got: object, expected: object) -> None:
    if got != expected:
        raise SoundreelError(
            f"clip has {name} {got}, the model takes {expected}; resample it, or give a longer clip"
        )
