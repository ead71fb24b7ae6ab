"""Films of `soundreel generate`: written piece by piece, whatever their length."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.film_clock import FilmClock
from soundreel.films import Films
from soundreel.media.combine import GivenTrack, picture_length
from soundreel.media.film_writer import FilmWriter
from soundreel.protocols import Upscaler
from soundreel.types import ClipSpec


@dataclass(frozen=True, kw_only=True)
class FilmWish:
    """A film as the command line asks for it.

    Attributes:
        duration: seconds of the whole film; None is as long as what is given.
        start: seconds into the given video or sound.
        is_model_size: write the given pictures or sound as the model sees them.
        words: arguments of the pipeline's `stream`.
    """

    video: Path | None
    audio: Path | None
    after: Path | None
    duration: Fraction | None
    start: Fraction
    is_model_size: bool
    words: dict[str, Any]

    @property
    def is_asked(self) -> bool:
        """Tell whether anything but single windows from nothing is asked for."""
        given = (self.video, self.audio, self.after, self.duration)
        return any(source is not None for source in given)

    @property
    def whole(self) -> dict[str, Any]:
        """Return what is asked for as arguments of `generate`, for whole clips in memory."""
        asked = {name: getattr(self, name) for name in ("video", "audio", "after")}
        asked["duration_s"] = self.duration
        return {name: value for name, value in asked.items() if value is not None}


def check_film(wish: FilmWish, pipeline: Any) -> Films | None:
    """Return the pipeline as one that makes films of windows; None for one that has its own way.

    Raises:
        SoundreelError: the model makes no such film, or its length is missing or too short.
    """
    for name in ("video", "audio", "after"):
        if getattr(wish, name) is not None and name not in pipeline.conditions:
            raise SoundreelError(f"this model cannot be given {name}; leave it out")
    if wish.duration is None and wish.after is not None:
        raise SoundreelError("--after goes on for ever: give the length of the film (--duration)")
    if not hasattr(pipeline, "film_maker"):
        if wish.start or wish.words["modality"] != "both":
            raise SoundreelError("this model has no --start and no --modality; leave them out")
        return None
    if wish.duration is not None:
        FilmClock(pipeline.clip).num_frames(wish.duration)  # too short a film stops here
    request = {name: value for name, value in wish.words.items() if name != "join"}
    pipeline.film_maker(is_given=wish.video is not None or wish.audio is not None, **request)
    return pipeline


def write_film(
    wish: FilmWish,
    pipeline: Films,
    path: Path,
    *,
    seed: int,
    upscaler: Upscaler | None,
    advance: Callable[[int, int], None],
    comment: str,
) -> Clip:
    """Write one film as it is made, and return its first piece.

    The picture of a given video, and the sound of a given file, are its own, copied without
    encoding them again where the whole is taken and the container can hold it.

    Args:
        advance: `advance(done, total)` in frames; a total of 0 is not known.
    """
    spec = pipeline.clip
    total, num_samples = _lengths(wish, spec)
    picture, sound = _given_tracks(wish)
    pieces = pipeline.stream(
        seed=seed,
        duration_s=wish.duration,
        video=wish.video,
        audio=wish.audio,
        after=wish.after,
        start_s=wish.start,
        **wish.words,
    )
    first, done = None, 0
    with FilmWriter(
        path,
        spec.frame_rate,
        spec.sample_rate,
        picture=picture,
        sound=sound,
        num_samples=num_samples,
        comment=comment,
    ) as writer:
        for number, piece in enumerate(pieces):
            if upscaler is not None and piece.frames is not None and picture is None:
                piece = upscaler.upscale_clip(piece, seed=seed + number)
            writer.write(piece.frames, piece.waveform)
            first = first or piece
            done += round(piece.duration * spec.frame_rate)
            advance(done, max(total, done))
    assert first is not None, "a film has at least one piece"
    return first


def _lengths(wish: FilmWish, spec: ClipSpec) -> tuple[int, int | None]:
    """Return the frames of a film (0: not known), and the samples of sound that it must have."""
    if wish.video is None:
        return (0 if wish.duration is None else FilmClock(spec).num_frames(wish.duration)), None
    length = wish.duration or picture_length(wish.video) - wish.start
    num_samples = None if wish.is_model_size else round(length * spec.sample_rate)
    return ceil(length * spec.frame_rate), num_samples


def _given_tracks(wish: FilmWish) -> tuple[GivenTrack | None, GivenTrack | None]:
    """Return the picture and the sound that are taken from a file as they are."""
    given = wish.video or wish.audio
    if given is None or wish.is_model_size:
        return None, None
    track = GivenTrack(given, wish.start, wish.duration)
    return (track, None) if wish.video is not None else (None, track)
