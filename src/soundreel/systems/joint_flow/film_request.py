"""Read requests: what is given or went before, and how long the result lasts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, floor
from pathlib import Path

import numpy as np

from soundreel.clip import Clip, Seconds
from soundreel.errors import SoundreelError
from soundreel.systems.joint_flow.film import whole_hops
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.types import AV, ClipSpec, frame_to_sample

Encode = Callable[[Clip], AV]
"""Make codec latents of a clip of any length, with a batch of one."""


@dataclass(frozen=True)
class Film:
    """The known part of a film, and the length to be made.

    Attributes:
        num_frames: frames to make; None for ever.
        given: codec latents of one modality, a batch of one, that stay; absent for none.
        past: codec latents of both to go on from, likewise.
        source: the clip whose own frames or sound are kept, or that the film begins with.
    """

    num_frames: int | None
    given: AV = field(default_factory=lambda: AV(None, None))
    past: AV = field(default_factory=lambda: AV(None, None))
    source: Clip | None = None

    @property
    def num_groups(self) -> int | None:
        """Return groups whose windows cover the frames."""
        return None if self.num_frames is None else -(-self.num_frames // HOP) + 1

    def num_windows(self, window: int) -> int:
        """Return how often so many groups are sampled at once, half of them history.

        Raises:
            SoundreelError: the film does not end.
        """
        if self.num_groups is None:
            raise SoundreelError("only films that end are counted")
        kept = min(self.past["video"].shape[1], window // 2) if self.past.present else 0
        further = self.num_groups - (window - kept)
        return 1 + -(-max(0, further) // (window - window // 2))


def read_film(
    spec: ClipSpec,
    encode: Encode,
    video: Clip | str | Path | None,
    audio: Clip | str | Path | None,
    after: Clip | str | Path | None,
    duration_s: Seconds | None,
) -> Film:
    """Return what a request asks for; a path is read whole.

    Raises:
        SoundreelError: what is asked for does not fit together.
        MediaError: a file cannot be read.
    """
    if sum(x is not None for x in (video, audio, after)) > 1:
        raise SoundreelError("video, audio and after exclude each other; give one of them")
    num_frames = None
    if duration_s is not None:
        num_frames = round(Fraction(duration_s) * spec.frame_rate)
        if num_frames < 1:
            raise SoundreelError(f"duration_s holds no frame, got {float(duration_s):g}")
    if after is not None:
        return _sequel(_opened(after), spec, encode, num_frames)
    if video is not None:
        return _with_given("video", _opened(video), spec, encode, duration_s)
    if audio is not None:
        return _with_given("audio", _opened(audio), spec, encode, duration_s)
    return Film(num_frames)


def ending(clip: Clip, spec: ClipSpec, encode: Encode, num_groups: int) -> AV:
    """Return the latents of the last groups that lie wholly within a clip.

    Raises:
        SoundreelError: there are none.
    """
    fitted = whole_hops(clip, spec)
    hops = min(fitted.num_frames // HOP, num_groups + 1)
    if hops < 2:
        raise SoundreelError(
            f"the clip to go on from lasts {clip.duration_s:g} s; at least"
            f" {float(2 * HOP / spec.frame_rate):g} s are needed"
        )
    length = hops * HOP / spec.frame_rate
    return encode(fitted.cut(fitted.duration - length, length)).map(lambda x: x[:, 1:-1])


def with_source(made: Clip, source: Clip | None) -> Clip:
    """Return what was made with what was given: the other modality, or the clip before it."""
    if source is None:
        return made
    if made.frames is None and made.waveform is not None:
        length = int(source.duration * made.sample_rate)
        return replace(source, waveform=made.waveform[:, :length], sample_rate=made.sample_rate)
    if source.frames is None and source.waveform is not None:
        length = frame_to_sample(made.num_frames, made.frame_rate, source.sample_rate)
        sound = source.waveform[:, :length]
        return replace(made, waveform=sound, sample_rate=source.sample_rate)
    return replace(
        made,
        frames=np.concatenate([_present(source.frames), _present(made.frames)]),
        waveform=np.concatenate([_present(source.waveform), _present(made.waveform)], axis=1),
    )


def _sequel(source: Clip, spec: ClipSpec, encode: Encode, num_frames: int | None) -> Film:
    if source.frames is None or source.waveform is None:
        raise SoundreelError("the clip to go on from needs pictures and sound")
    fitted = whole_hops(source, spec)
    past = ending(fitted, spec, encode, (spec.num_frames // HOP + 1) // 2)
    made = None if num_frames is None else num_frames - fitted.num_frames
    if made is not None and made < 1:
        raise SoundreelError(
            f"the result is to last {float((num_frames or 0) / spec.frame_rate):g} s, but the clip"
            f" that it begins with lasts {fitted.duration_s:g} s; ask for a longer one"
        )
    return Film(made, past=past, source=fitted)


def _with_given(
    modality: str, source: Clip, spec: ClipSpec, encode: Encode, duration_s: Seconds | None
) -> Film:
    kept = source.frames if modality == "video" else source.waveform
    if kept is None:
        raise SoundreelError(f"the clip given as {modality} has none")
    is_video = modality == "video"
    source = replace(
        source,
        frames=source.frames if is_video else None,
        waveform=None if is_video else source.waveform,
    )
    if duration_s is not None:
        source = source.cut(0, duration_s)
    # Sound must reach to the end of the last picture; pictures end with the last whole one.
    frames = source.duration * spec.frame_rate
    frames = ceil(frames) if modality == "video" else floor(frames)
    if not frames:
        raise SoundreelError(f"the sound lasts {source.duration_s:g} s, less than a frame")
    return Film(frames, given=encode(source), source=source)


def _opened(source: Clip | str | Path) -> Clip:
    return source if isinstance(source, Clip) else Clip.load(source)


def _present(array: np.ndarray | None) -> np.ndarray:
    assert array is not None, "a clip that goes on from another has both modalities"
    return array
