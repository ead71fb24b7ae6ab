"""Choose the clips that a study shows, and the one format they all get."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from io import BufferedIOBase
from math import floor
from pathlib import Path

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.media.encode import AAC_RATES
from soundreel.media.errors import MediaError
from soundreel.media.framing import Framing
from soundreel.media.probe import MediaInfo, probe

MAX_SHORTER_SIDE = 480
"""Pixels; larger pictures are scaled down unless the study's maker asks for them."""
SLACK_S = Fraction(1, 2)
"""By so much the length in a header may exceed what can be decoded."""
TINY = Framing(height=16, width=16)


@dataclass(frozen=True, slots=True)
class SourceClip:
    """A clip of a system before it is made blind; `open` gives a path or the file's bytes."""

    name: str
    open: Callable[[], Path | BufferedIOBase]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFormat:
    """The common format of all clips of a study."""

    height: int
    width: int
    frame_rate: Fraction
    sample_rate: int
    num_channels: int
    duration: Fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatWish:
    """Format that the study's maker asks for; None takes the default of `choose_format`."""

    size: tuple[int, int] | None = None
    frame_rate: Fraction | None = None
    sample_rate: int | None = None
    num_channels: int = 1
    duration: Fraction | None = None
    min_duration: Fraction = Fraction(1)

    @property
    def needed(self) -> Fraction:
        """Return for how many seconds a clip must last."""
        return self.min_duration if self.duration is None else self.duration


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A clip that cannot be shown, and why."""

    system: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Usable:
    """A source whose header was read; `duration` is what the header says, or what was decoded."""

    source: SourceClip
    info: MediaInfo
    duration: Fraction


def draw_clips(
    systems: Mapping[str, Sequence[SourceClip]], max_clips: int, seed: int, wish: FormatWish
) -> tuple[dict[str, list[Usable]], list[LeftOut]]:
    """Draw up to `max_clips` of each system, the same for the same seed, decoded once to be sure.

    What has no picture, no sound, is too short or damaged gives its place to another.

    Raises:
        SoundreelError: nothing is left of a system.
    """
    left_out: list[LeftOut] = []
    queues = {}
    for system, sources in systems.items():
        rng = random.Random(f"{seed}/{system}")
        shuffled = rng.sample(list(sources), len(sources))
        queues[system] = _kept(system, shuffled, lambda source: _look(source, wish), left_out)
    first = [clip.duration for queue in queues.values() for clip in queue[:max_clips]]
    enough = min(first, default=Fraction(0)) + SLACK_S
    if wish.duration is not None:
        enough = wish.duration
    drawn = {}
    for system, queue in queues.items():
        found = _kept(system, queue, lambda clip: _decoded(clip, enough, wish), left_out, max_clips)
        if not found:
            reasons = [f"; {item.name} {item.reason}" for item in left_out if item.system == system]
            raise SoundreelError(f"system {system!r} has no clip that can be shown{reasons[-1]}")
        drawn[system] = sorted(found, key=lambda clip: clip.source.name)
    return drawn, left_out


def _kept(
    system: str,
    items: Sequence[SourceClip] | Sequence[Usable],
    look: Callable[..., Usable],
    left_out: list[LeftOut],
    limit: int | None = None,
) -> list[Usable]:
    """Return what `look` makes of the items, up to `limit`; what it refuses goes to `left_out`."""
    kept: list[Usable] = []
    for item in items:
        if len(kept) == limit:
            break
        try:
            kept.append(look(item))
        except MediaError as error:
            name = item.source.name if isinstance(item, Usable) else item.name
            left_out.append(LeftOut(system, name, error.problem))
    return kept


def _look(source: SourceClip, wish: FormatWish) -> Usable:
    info = probe(source.open())
    if not info.has_video or not info.has_audio:
        raise _unfit(source, f"has no {'sound' if info.has_video else 'picture'}")
    if info.duration is None or info.frame_rate is None:
        raise _unfit(source, "does not tell its length or its frame rate")
    if info.duration < wish.needed:
        raise _unfit(source, _too_short(info.duration, wish))
    return Usable(source, info, info.duration)


def _too_short(duration: Fraction, wish: FormatWish) -> str:
    return f"lasts {float(duration):.2f} s, {float(wish.needed):g} s are needed"


def _unfit(source: SourceClip, problem: str) -> MediaError:
    return MediaError(source.name, problem, "leave it out")


def _decoded(clip: Usable, enough: Fraction, wish: FormatWish) -> Usable:
    """Return the clip with the length it really has, up to `enough` seconds."""
    wanted = enough if clip.duration > enough or wish.duration is not None else None
    duration = Clip.load(clip.source.open(), duration=wanted, framing=TINY).duration
    if duration < wish.needed:
        raise _unfit(clip.source, _too_short(duration, wish))
    return replace(clip, duration=duration)


def choose_format(drawn: Mapping[str, Sequence[Usable]], wish: FormatWish) -> ClipFormat:
    """Choose the largest picture and the highest rates, so that nothing is taken from any system.

    The shape is that of the largest picture; the others are fitted into it as a whole. The length
    is that of the shortest clip, for none can be made longer.
    """
    every = [clip for clips in drawn.values() for clip in clips]
    infos = [clip.info for clip in every]
    height, width = wish.size or _shown_size(infos)
    sample_rate = wish.sample_rate or max(i.sample_rate for i in infos)
    frame_rate = wish.frame_rate or max(i.frame_rate or Fraction(0) for i in infos)
    duration = min(clip.duration for clip in every) if wish.duration is None else wish.duration
    return ClipFormat(
        height=height,
        width=width,
        frame_rate=frame_rate,
        sample_rate=min((r for r in AAC_RATES if r >= sample_rate), default=AAC_RATES[-1]),
        num_channels=wish.num_channels,
        duration=max(1, floor(duration * frame_rate)) / frame_rate,
    )


def _shown_size(infos: Sequence[MediaInfo]) -> tuple[int, int]:
    """Return height and width of the largest picture, scaled down where it is very large."""
    largest = max(infos, key=lambda info: info.height * info.width)
    scale = min(Fraction(1), Fraction(MAX_SHORTER_SIDE, min(largest.height, largest.width)))
    return round(largest.height * scale), round(largest.width * scale)


def telling_differences(drawn: Mapping[str, Sequence[Usable]], chosen: ClipFormat) -> list[str]:
    """Say what differs between systems and could tell them apart whatever they show.

    A system whose clips fall short of the format in one respect, while another's do not, looks or
    sounds coarser for that alone.
    """
    notes = []
    aspects = (
        ("picture height", "--size", chosen.height, lambda i: i.height),
        ("frame rate", "--frame-rate", chosen.frame_rate, lambda i: i.frame_rate),
        ("sample rate", "--sample-rate", chosen.sample_rate, lambda i: i.sample_rate),
    )
    for what, flag, limit, value_of in aspects:
        values = {s: min(limit, *(value_of(c.info) for c in cs)) for s, cs in drawn.items()}
        if len(set(values.values())) > 1:
            listed = ", ".join(f"{system} {float(value):g}" for system, value in values.items())
            notes.append(f"the systems differ in {what} ({listed}); {flag} makes them equal")
    return notes


def shape_differences(drawn: Mapping[str, Sequence[Usable]], chosen: ClipFormat) -> list[str]:
    """Say which systems' pictures have another shape than the study's, and get black bars."""
    fitting = Framing(kind="letterbox", height=chosen.height, width=chosen.width)
    notes = []
    for system, clips in drawn.items():
        barred = [
            f"{clip.info.height}x{clip.info.width}"
            for clip in clips
            if fitting.scaled(clip.info.height, clip.info.width)[2:]
            != (chosen.width, chosen.height)
        ]
        if barred:
            notes.append(
                f"{len(barred)} of {len(clips)} clips of {system} have another shape than "
                f"{chosen.height}x{chosen.width} (the first {barred[0]}): they are shown whole, "
                "with black bars; cut them before if raters must not see bars"
            )
    return notes
