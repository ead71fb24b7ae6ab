"""Films as files: what is asked for, checked before any work, and written piece by piece."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.film import Join
from soundreel.film_clock import FilmClock, Modality
from soundreel.films import Films
from soundreel.media.combine import GivenTrack, picture_length
from soundreel.media.film_writer import FilmWriter
from soundreel.types import ClipSpec


@dataclass(frozen=True, kw_only=True)
class FilmRequest:
    """A film that is asked for; its files are not opened yet.

    Attributes:
        between: the files before and after a gap.
        duration: seconds of the whole film, or of the gap; None is as long as what is given.
        start: seconds into the given video or sound.
        is_model_size: write the given pictures or sound as the model sees them.
        options: what else `generate` takes, such as `label`, and the model's options.
    """

    video: Path | None = None
    audio: Path | None = None
    after: Path | None = None
    between: tuple[Path, Path] | None = None
    duration: Fraction | None = None
    start: Fraction = Fraction(0)
    modality: Modality = "both"
    join: Join | None = None
    is_model_size: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_asked(self) -> bool:
        """Tell whether anything but single windows from nothing is asked for."""
        given = (self.video, self.audio, self.after, self.between, self.duration)
        return any(source is not None for source in given)

    @property
    def whole(self) -> dict[str, Any]:
        """Return what is asked for as arguments of `generate`, for whole clips in memory."""
        asked = {name: getattr(self, name) for name in ("video", "audio", "after")}
        asked["duration_s"] = self.duration
        return {name: value for name, value in asked.items() if value is not None}


def check_film(request: FilmRequest, pipeline: Any) -> Films | None:
    """Return the pipeline as one that makes films; None for one that makes whole clips alone.

    Raises:
        SoundreelError: the model makes no such film, or its length is missing or too short.
    """
    for name in ("video", "audio", "after", "between"):
        if getattr(request, name) is not None and name not in pipeline.conditions:
            raise SoundreelError(f"this model cannot be given {name}; leave it out")
    if request.duration is None and request.after is not None:
        raise SoundreelError("--after goes on for ever: give the length of the film (--duration)")
    if request.duration is None and request.between is not None:
        raise SoundreelError("--between needs the length of the gap (--duration)")
    if request.modality != "both" and request.after is None:
        raise SoundreelError("--modality chooses what of --after goes on; give --after")
    if not hasattr(pipeline, "stream"):
        if request.start or request.modality != "both" or request.join or request.is_model_size:
            raise SoundreelError(
                "this model has no --start, --modality, --join and --model-size; leave them out"
            )
        return None
    if request.duration is not None:
        FilmClock(pipeline.clip).num_frames(request.duration)  # too short a film stops here
    pipeline.check_film(
        modality=request.modality,
        is_given=request.video is not None or request.audio is not None,
        join=request.join,
        **request.options,
    )
    return pipeline


def write_film(
    request: FilmRequest,
    pipeline: Films,
    path: Path,
    *,
    seed: int,
    enlarge: int = 1,
    larger: Callable[[Clip, int], Clip] | None = None,
    advance: Callable[[int, int], None],
    comment: str,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Clip:
    """Write one film as it is made, and return the first piece that is made.

    The picture of a given video, and the sound of a given file, are its own, copied without
    encoding them again where the whole is taken and the container can hold it.

    Args:
        enlarge: write each pixel of an MP4 as a block of so many rows and columns.
        larger: makes the frames of a piece larger, as the model made them, with a seed.
        advance: `advance(done, total)` in frames; a total of 0 is not known.
        is_stopped: asked after each piece; the film ends there where it is True.
    """
    spec = pipeline.clip
    total, num_samples = _lengths(request, spec)
    picture, sound = _given_tracks(request)
    is_enlarged = larger is not None and picture is None
    pieces = _stream(request, pipeline, seed, is_rounded=not is_enlarged)
    shown, done = None, 0
    is_kept = request.after is not None or request.between is not None  # its first piece is given
    tracks: dict[str, Any] = {"picture": picture, "sound": sound, "num_samples": num_samples}
    rates = (spec.frame_rate, spec.sample_rate)
    with FilmWriter(path, *rates, comment=comment, enlarge=enlarge, **tracks) as writer:
        for number, piece in enumerate(pieces):
            if larger is not None and is_enlarged:
                piece = larger(piece, seed)  # one noise image for all frames of the film
            writer.write(piece.frames, piece.waveform)
            if number <= is_kept:
                shown = piece
            done += round(piece.duration * spec.frame_rate)
            advance(done, max(total, done))
            if is_stopped():
                break
    assert shown is not None, "a film has at least one piece"
    return shown


def _stream(
    request: FilmRequest, pipeline: Films, seed: int, *, is_rounded: bool
) -> Iterator[Clip]:
    """Return the pieces of the film that is asked for."""
    return pipeline.stream(
        seed=seed,
        is_rounded=is_rounded,
        duration_s=request.duration,
        video=request.video,
        audio=request.audio,
        after=request.after,
        between=request.between,
        start_s=request.start,
        modality=request.modality,
        join=request.join,
        **request.options,
    )


def _lengths(request: FilmRequest, spec: ClipSpec) -> tuple[int, int | None]:
    """Return the frames of a film (0: not known), and the samples of sound that it must have."""
    if request.video is None:
        if request.duration is None or request.between is not None:
            return 0, None
        return FilmClock(spec).num_frames(request.duration), None
    length = request.duration or picture_length(request.video) - request.start
    num_samples = None if request.is_model_size else round(length * spec.sample_rate)
    return ceil(length * spec.frame_rate), num_samples


def _given_tracks(request: FilmRequest) -> tuple[GivenTrack | None, GivenTrack | None]:
    """Return the picture and the sound that are taken from a file as they are."""
    given = request.video or request.audio
    if given is None or request.is_model_size:
        return None, None
    track = GivenTrack(given, request.start, request.duration)
    return (track, None) if request.video is not None else (None, track)
