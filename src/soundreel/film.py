"""Films of any length from a model of short clips: window after window, on one clock.

Window k of a film covers `num_frames` frames from `origin + k * hop` on, where `hop` is what each
window adds: its length without the `overlap` that it shares with the window before. A system tells
how one window is made from the state that the one before left (`FilmMaker`); everything else is
here and the same for all systems: which frames and samples a window owns, what noise it starts
from, how borders are joined, when a film ends.

Memory does not depend on the length. A window's noise depends on the seed and the window's number
alone, and a piece is given out only when no later window can change it: so a longer film begins
like a shorter one bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from soundreel.clip import Clip
from soundreel.diffusion.noise import derived_seed
from soundreel.errors import SoundreelError
from soundreel.film_clock import FilmClock, Frames, Modality, Sound, only, to_border
from soundreel.media.seam import (
    FADE_S,
    fade_pictures,
    fade_sound,
    meet_pictures,
    meet_sound,
)
from soundreel.types import ClipSpec
from soundreel.unrounded import clip_of

Join = Literal["fade", "butt"]
"""Join of windows: faded over what both have made, or cut and set side by side (as published
for MM-LDM). Windows that share nothing can only be set side by side."""


@runtime_checkable
class FilmMaker(Protocol):
    """A system's way to make one window of a film from the one before.

    Attributes:
        clip: length, size and rates of a window.
        overlap: frames that neighbouring windows share.
    """

    @property
    def clip(self) -> ClipSpec: ...

    @property
    def overlap(self) -> int: ...

    def begin(self, past: Clip | None) -> Any:
        """Return the state that the first window is made from.

        Args:
            past: the window before it, of which a modality may be absent; None for none.
        """
        ...

    def window(self, state: Any, given: Clip | None, seed: int) -> tuple[Clip, Any]:
        """Make one window, and the state that the next one is made from.

        Its frames are best left unrounded (`UnroundedClip`): the film is rounded when it is joined.

        Args:
            given: frames or waveform of this window that are known.
            seed: of this window's noise.
        """
        ...


def window_seed(seed: int, window: int) -> int:
    """Return the seed of one window's noise; window 0 has the film's own, as a single clip has."""
    return derived_seed(seed, window) if window else seed


def film(
    maker: FilmMaker,
    *,
    seed: int = 0,
    num_frames: int | None = None,
    after: Clip | None = None,
    modality: Modality = "both",
    given: Iterable[Clip] | None = None,
    join: Join = "fade",
) -> Iterator[Clip]:
    """Make a film piece by piece.

    Args:
        num_frames: of the whole film, what it goes on from included; None is endless (or as long
            as what is given).
        after: a clip of the model's size and rates that the film begins with and goes on from, at
            least a window long.
        modality: what of `after` goes on; the other is neither looked at nor made.
        given: one clip a window with its known frames or its known waveform, see `given_frames` and
            `given_sound`; the film ends with them.

    Yields:
        Clips that follow each other without a gap. The frames and samples of all together are those
        of `num_frames` frames, exactly.

    Raises:
        SoundreelError: `after` is shorter than a window or not shorter than the film, or lacks
            what is to go on.
    """
    clock = FilmClock(maker.clip, maker.overlap)
    past = None
    if after is not None:
        after = only(after, modality)
        clock, after, past = _go_on(clock, after, num_frames)
        yield after
    windows = _windows(maker, clock, past, seed, num_frames, given)
    if modality != "both":
        windows = (only(window, modality) for window in windows)
    yield from join_windows(windows, clock, num_frames=num_frames, join=join, after=after)


def _go_on(clock: FilmClock, after: Clip, num_frames: int | None) -> tuple[FilmClock, Clip, Clip]:
    """Return the clock of the windows that follow a clip, the clip in whole frames, and its end."""
    spec = clock.clip
    length = after.num_frames or int(after.duration * spec.frame_rate)
    if length < spec.num_frames:
        raise SoundreelError(
            f"the clip to go on from lasts {after.duration_s:.3f} s, a window of this model "
            f"{spec.duration_s:.3f} s; give a longer clip"
        )
    if num_frames is not None and num_frames <= length:
        raise SoundreelError(
            f"the film is to last {float(num_frames / spec.frame_rate):.3f} s, but the clip that "
            f"it begins with lasts {after.duration_s:.3f} s; ask for a longer film"
        )
    whole = _Stretch(clock, 0, after.frames, after.waveform)
    first = length - spec.num_frames
    following = replace(clock, origin=length - clock.overlap)
    return following, _required(whole.clip(0, length)), _required(whole.clip(first, length))


def _required(clip: Clip | None) -> Clip:
    assert clip is not None, "a stretch of at least a window is no empty one"
    return clip


def _windows(
    maker: FilmMaker,
    clock: FilmClock,
    past: Clip | None,
    seed: int,
    num_frames: int | None,
    given: Iterable[Clip] | None,
) -> Iterator[Clip]:
    """Make windows until the film's frames are final."""
    state = maker.begin(past)
    numbers = count(0 if past is None else 1)
    limit = None if num_frames is None else clock.num_windows(num_frames)
    known = iter(given) if given is not None else iter(lambda: None, 0)
    for number, signal in islice(zip(numbers, known, strict=False), limit):
        window, state = maker.window(state, signal, window_seed(seed, number))
        yield window


def join_windows(
    windows: Iterable[Clip],
    clock: FilmClock,
    *,
    num_frames: int | None = None,
    join: Join = "fade",
    after: Clip | None = None,
) -> Iterator[Clip]:
    """Join windows that overlap as the clock says; each gives one piece of the film.

    Args:
        num_frames: where the film ends; None where the windows end, less the last overlap.
        after: what lies before the first window and stays as it is.
    """
    held = None if after is None else _end_of(after, clock)
    for number, window in enumerate(windows):
        begin = clock.start(number)
        is_kept = number == 0 and after is not None
        frames = _joined(
            None if held is None else held.frames,
            window.frames,
            (_kept_pictures if is_kept else _pictures)(clock),
            join,
        )
        sound = _joined(
            None if held is None else held.waveform,
            to_border(window.waveform, clock, begin),
            _kept_sound(clock) if is_kept else _sound(clock),
            join,
        )
        made = _Stretch(clock, begin, frames, sound)
        held = made.clip(begin + clock.hop, begin + clock.clip.num_frames)
        end = begin + clock.hop if num_frames is None else min(begin + clock.hop, num_frames)
        piece = made.clip(begin + clock.overlap if is_kept else begin, end)
        if piece is not None:
            yield piece


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Frames and samples of a film from frame `begin` on."""

    clock: FilmClock
    begin: int
    frames: Frames | None
    sound: Sound | None

    def clip(self, first: int, end: int) -> Clip | None:
        """Return the film's frames `first` to `end`; None where that is nothing."""
        clock = self.clock
        if end <= first:
            return None
        zero = clock.sample(self.begin)
        samples = slice(clock.sample(first) - zero, clock.sample(end) - zero)
        return clip_of(
            None if self.frames is None else self.frames[first - self.begin : end - self.begin],
            None if self.sound is None else self.sound[:, samples],
            clock.clip.frame_rate,
            clock.clip.sample_rate,
        )


def _joined(
    left: np.ndarray | None,
    right: np.ndarray | None,
    fade: Callable[[np.ndarray, np.ndarray], np.ndarray],
    join: Join,
) -> np.ndarray | None:
    """Put the end of what is before in place of a window's beginning, or fade the two."""
    if left is None or right is None:
        return right
    axis = 0 if right.ndim == 4 else 1
    if join == "fade":
        return fade(left, right)
    length = left.shape[axis]
    return np.concatenate([left, right.take(range(length, right.shape[axis]), axis)], axis)


def _pictures(clock: FilmClock) -> Callable[[Frames, Frames], Frames]:
    return partial(fade_pictures, areas_fade=_areas_fade(clock))


def _kept_pictures(clock: FilmClock) -> Callable[[Frames, Frames], Frames]:
    def join(left: Frames, right: Frames) -> Frames:
        length = len(left)
        shared, following = right[length - 1 : length], right[length:]
        met = meet_pictures(left[-1:], shared, following, length, _areas_fade(clock))
        return np.concatenate([left, met])

    return join


def _areas_fade(clock: FilmClock) -> int:
    """Return half of what a window adds: its end, which the next window meets, is its own."""
    return max(clock.overlap, clock.hop // 2)


def _sound(clock: FilmClock) -> Callable[[Sound, Sound], Sound]:
    def join(left: Sound, right: Sound) -> Sound:
        length = left.shape[1]
        faded = fade_sound(left, right[:, :length], _fade_length(clock))
        return np.concatenate([faded, right[:, length:]], axis=1)

    return join


def _kept_sound(clock: FilmClock) -> Callable[[Sound, Sound], Sound]:
    def join(left: Sound, right: Sound) -> Sound:
        length = left.shape[1]
        shared, following = right[:, length - 1 : length], right[:, length:]
        met = meet_sound(left[:, -1:], shared, following, _fade_length(clock))
        return np.concatenate([left, met], axis=1)

    return join


def _fade_length(clock: FilmClock) -> int:
    return round(FADE_S * clock.clip.sample_rate)


def _end_of(after: Clip, clock: FilmClock) -> Clip | None:
    """Return what a clip shares with the window that follows it."""
    stretch = _Stretch(clock, 0, after.frames, after.waveform)
    return stretch.clip(clock.origin, clock.origin + clock.overlap)


def join_clips(pieces: Iterable[Clip]) -> Clip:
    """Return pieces that follow each other as one clip."""
    parts = list(pieces)
    frames = [part.frames for part in parts if part.frames is not None]
    sound = [part.waveform for part in parts if part.waveform is not None]
    return replace(
        parts[0],
        frames=np.concatenate(frames) if frames else None,
        waveform=np.concatenate(sound, axis=1) if sound else None,
    )
