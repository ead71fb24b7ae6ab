"""Read requests: what is given or went before, and how long the result lasts."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, floor
from pathlib import Path

from soundreel.clip import Clip, Seconds
from soundreel.errors import SoundreelError
from soundreel.film_clock import FilmClock
from soundreel.request import Given as GivenClip
from soundreel.systems.joint_flow.given import Given, GivenLatents
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.types import AV, ClipSpec, frame_to_sample

Encode = Callable[[Clip], AV]
"""Make codec latents of a clip of any length, with a batch of one."""


@dataclass(frozen=True)
class Film:
    """The known part of a film, and the length to be made.

    Attributes:
        num_frames: frames to make; None for ever.
        given: one modality that stays; None for none.
        past: codec latents to go on from, a batch of one; absent for none.
        wanted: what is decoded.
    """

    num_frames: int | None
    given: Given | None = None
    past: AV = field(default_factory=lambda: AV(None, None))
    wanted: tuple[str, ...] = ("video", "audio")

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
        return 1 + -(-max(0, self.num_groups - window) // (window - window // 2))


def read_film(
    spec: ClipSpec,
    encode: Encode,
    video: Clip | str | Path | None,
    audio: Clip | str | Path | None,
    duration_s: Seconds | None,
) -> tuple[Film, Clip | None]:
    """Return what a request asks for, and the clip whose pictures or sound are kept.

    A path is read whole.

    Raises:
        SoundreelError: what is asked for does not fit together.
        MediaError: a file cannot be read.
    """
    if video is not None and audio is not None:
        raise SoundreelError("video and audio exclude each other; give one of them")
    num_frames = None if duration_s is None else FilmClock(spec).num_frames(duration_s)
    source = video if video is not None else audio
    if source is None:
        return Film(spec.num_frames if num_frames is None else num_frames), None
    clip = source if isinstance(source, Clip) else Clip.load(source)
    given = GivenClip("video" if video is not None else "audio", clip)
    return _with_given(given, spec, encode, duration_s)


def ending(clip: Clip, spec: ClipSpec, encode: Encode, num_groups: int) -> AV:
    """Return the latents of the last groups that lie wholly within a clip.

    Args:
        clip: at the model's rates; its end is the border of a hop.

    Raises:
        SoundreelError: there are none.
    """
    frames = whole_frames(clip, spec)
    hops = min(frames // HOP, num_groups + 1)
    if hops < 2:
        raise SoundreelError(
            f"the clip to go on from lasts {clip.duration_s:g} s; at least"
            f" {float(2 * HOP / spec.frame_rate):g} s are needed"
        )
    length = hops * HOP
    last = clip.cut((frames - length) / spec.frame_rate, length / spec.frame_rate)
    return encode(last).map(lambda x: x[:, 1:-1])


def whole_frames(clip: Clip, spec: ClipSpec) -> int:
    """Return how many frames of the model a clip lasts, also where it is sound alone."""
    return clip.num_frames or floor(clip.duration * spec.frame_rate)


def with_source(made: Clip, source: Clip | None) -> Clip:
    """Return what was made with the modality that was given."""
    if source is None:
        return made
    if made.frames is None and made.waveform is not None:
        length = int(source.duration * made.sample_rate)
        return replace(source, waveform=made.waveform[:, :length], sample_rate=made.sample_rate)
    assert source.waveform is not None, "sound was given where pictures were made"
    length = frame_to_sample(made.num_frames, made.frame_rate, source.sample_rate)
    sound = source.waveform[:, :length]
    return replace(made, waveform=sound, sample_rate=source.sample_rate)


def _with_given(
    given: GivenClip, spec: ClipSpec, encode: Encode, duration_s: Seconds | None
) -> tuple[Film, Clip]:
    is_video, source = given.modality == "video", given.clip
    if (source.frames if is_video else source.waveform) is None:
        raise SoundreelError(f"the clip given as {given.modality} has none")
    source = replace(
        source,
        frames=source.frames if is_video else None,
        waveform=None if is_video else source.waveform,
    )
    if duration_s is not None:
        source = source.cut(0, duration_s)
    # Sound must reach to the end of the last picture; pictures end with the last whole one.
    frames = source.duration * spec.frame_rate
    frames = ceil(frames) if is_video else floor(frames)
    if not frames:
        raise SoundreelError(f"the sound lasts {source.duration_s:g} s, less than a frame")
    wanted = ("audio",) if is_video else ("video",)
    return Film(frames, GivenLatents(encode(source)), wanted=wanted), source
