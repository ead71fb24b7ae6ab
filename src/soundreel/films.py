"""Films of pipelines: `stream`, the same for every system that makes windows.

A film is made from nothing, goes on from a clip, gets sound for somebody's pictures or pictures for
somebody's sound; in each case window by window, in constant memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from soundreel.clip import Clip, Seconds
from soundreel.errors import SoundreelError
from soundreel.familiar import familiar_names
from soundreel.film import FilmMaker, Join, film, join_clips
from soundreel.film_clock import (
    FilmClock,
    Modality,
    Part,
    Picture,
    Sound,
    first_samples,
    given_frames,
    given_sound,
    held_pictures,
)
from soundreel.protocols import Progress
from soundreel.request import check_counts
from soundreel.types import ClipSpec
from soundreel.unrounded import rounded

Source = Clip | str | Path
FILM_WORDS = frozenset(("duration_s", "after", "between", "start_s", "modality", "join"))
"""Arguments of `generate` that ask for a film in place of single windows."""


@dataclass(frozen=True, kw_only=True)
class FilmInputs:
    """A film that is asked for, its sources opened, at the model's size and rates.

    Attributes:
        num_frames: of the whole film, or of the gap between two clips; None is without end.
        after: the clip that the film begins with.
        between: the clips before and after the gap.
        pictures, sound: read as they are needed; the film is as long as they are.
    """

    num_frames: int | None = None
    after: Clip | None = None
    between: tuple[Clip, Clip] | None = None
    pictures: Iterator[Picture] | None = None
    sound: Iterator[Sound] | None = None
    modality: Modality = "both"
    join: Join | None = None


class Films:
    """`stream` for pipelines that tell how one window is made (`film_maker`, `fit`).

    A system that makes films without such windows has `check_film` and `make_film` of its own.
    """

    clip: ClipSpec

    def __repr__(self) -> str:
        spec, takes = self.clip, ", ".join(sorted(self.conditions))
        sizes = f"{spec.duration_s:g} s, {spec.width}x{spec.height} pixels, {spec.sample_rate} Hz"
        return f"{type(self).__name__}({sizes}; takes {takes})"

    @property
    def conditions(self) -> frozenset[str]:
        """Return what can be given to `generate`."""
        raise NotImplementedError

    def film_maker(self, *, modality: Modality, is_given: bool, **request: Any) -> FilmMaker:
        """Return what makes the windows of a film.

        Args:
            modality: what of the past the windows go on from, and what is made.
            is_given: the windows' pictures or sound are known.
            request: what else `generate` takes.

        Raises:
            SoundreelError: the model cannot go on from a window, or an option is none of its own.
        """
        raise NotImplementedError

    def fit(self, clip: Clip) -> Clip:
        """Return a clip at the model's rates, size and channels."""
        raise NotImplementedError

    def check_film(
        self, *, modality: Modality, is_given: bool, join: Join | None, **request: Any
    ) -> None:
        """Raise `SoundreelError` where the model makes no such film, see `film_maker`."""
        del join
        self.film_maker(modality=modality, is_given=is_given, **request)

    def make_film(self, inputs: FilmInputs, *, seed: int, **request: Any) -> Iterator[Clip]:
        """Return the pieces of a film whose request is checked."""
        is_given = inputs.pictures is not None or inputs.sound is not None
        maker = self.film_maker(modality=inputs.modality, is_given=is_given, **request)
        clock = FilmClock(maker.clip, maker.overlap)
        given = None
        if inputs.pictures is not None:
            given = given_frames(inputs.pictures, clock)
        elif inputs.sound is not None:
            given = given_sound(inputs.sound, clock)
        return film(
            maker,
            seed=seed,
            num_frames=inputs.num_frames,
            after=inputs.after,
            modality=inputs.modality,
            given=given,
            join=inputs.join or "fade",
        )

    @familiar_names
    def stream(
        self,
        *,
        seed: int = 0,
        duration_s: Seconds | None = None,
        after: Source | None = None,
        video: Source | None = None,
        audio: Source | None = None,
        between: tuple[Source, Source] | None = None,
        start_s: Seconds = 0,
        modality: Modality = "both",
        join: Join | None = None,
        is_rounded: bool = True,
        **request: Any,
    ) -> Iterator[Clip]:
        """Return the pieces of a film as they are made, at the model's size and rates.

        Args:
            duration_s: of the whole film, what it goes on from included. None is as long as the
                given pictures or sound, or without end.
            after: the film begins with this clip and goes on from it.
            video: pictures that get sound; their pieces hold them at the model's size.
            audio: sound that gets pictures.
            between: two clips; `duration_s` is what is made between them.
            start_s: where in `video` or `audio` the film begins.
            modality: what of `after` goes on; the other is neither looked at nor made.
            join: "fade" what neighbouring windows both make, or "butt": set them side by side; None
                is "fade". For models whose windows are joined.
            is_rounded: False gives pictures that the model made as `UnroundedClip`, for
                super-resolution.
            request: what else `generate` takes, such as `label`, and the model's options.

        Raises:
            SoundreelError: the model makes no such film, arguments exclude each other, or a clip is
                too short.
            MediaError: a file cannot be read.
        """
        if sum(source is not None for source in (after, video, audio, between)) > 1:
            raise SoundreelError(
                "a film has one of after, between, video and audio; leave the others out"
            )
        if modality != "both" and after is None:
            raise SoundreelError("modality chooses what of a clip goes on: give the clip (after)")
        if start_s and video is None and audio is None:
            raise SoundreelError("start_s is a place in video or audio; give one of them")
        if between is not None and "between" not in self.conditions:
            raise SoundreelError("this model fills no gaps; leave between out")
        if between is not None and duration_s is None:
            raise SoundreelError("a gap needs a length: give duration_s")
        check_counts(1, seed, 1)
        is_given = video is not None or audio is not None
        self.check_film(modality=modality, is_given=is_given, join=join, **request)
        num_frames = None if duration_s is None else FilmClock(self.clip).num_frames(duration_s)
        part = Part.of(start_s, duration_s)
        pictures = sound = None
        if video is not None:
            pictures, num_frames = self._pictures(video, part)
        elif audio is not None:
            sound, num_frames = self._sound(audio, part)
        gap = None if between is None else (self._fitted(between[0]), self._fitted(between[1]))
        inputs = FilmInputs(
            num_frames=num_frames,
            after=None if after is None else self._fitted(after),
            between=gap,
            pictures=pictures,
            sound=sound,
            modality=modality,
            join=join,
        )
        pieces = self.make_film(inputs, seed=seed, **request)
        return rounded(pieces) if is_rounded else pieces

    def films(
        self, *, count: int, seed: int, progress: Progress | None = None, **request: Any
    ) -> list[Clip]:
        """Return `count` whole films, the i-th from `seed + i`.

        Args:
            progress: called with the films done, and all, as each piece is made.
            request: that of `stream`.

        Raises:
            SoundreelError: as `stream`; or there is no `duration_s`.
        """
        if request.get("duration_s") is None:
            raise SoundreelError("a film needs a length: give duration_s, or use stream()")

        def told(done: int) -> Iterator[Clip]:
            for piece in self.stream(seed=seed + done, **request):
                if progress is not None:
                    progress(done, count)
                yield piece
            if progress is not None:
                progress(done + 1, count)

        return [join_clips(told(index)) for index in range(count)]

    def _fitted(self, source: Source) -> Clip:
        if not isinstance(source, Clip):
            source = Clip.load(
                source, frame_rate=self.clip.frame_rate, sample_rate=self.clip.sample_rate
            )
        return self.fit(source)

    def _pictures(self, source: Source, part: Part) -> tuple[Iterator[Picture], int]:
        """Return the pictures at the model's size, one after the other, and how many they are.

        They last at least as long as the video: the last one is held for what a frame lacks.
        """
        rate = self.clip.frame_rate
        if isinstance(source, Clip):
            if source.frames is None:
                raise SoundreelError("the clip given as video has none")
            length = part.length(source.duration)
            whole = source.resample(frame_rate=rate).frames
            assert whole is not None, "a clip with frames keeps them"
            pictures: Iterable[Picture] = whole[floor_frames(part.start, rate) :]
        else:
            from soundreel.media.combine import picture_length
            from soundreel.media.decode import read_frames

            length = part.length(picture_length(Path(source)))
            pictures = read_frames(source, frame_rate=rate, start=part.start)
        count = max(1, ceil(length * rate))
        fitted = (self._fit_picture(picture) for picture in pictures)
        return held_pictures(fitted, count), count

    def _fit_picture(self, picture: Picture) -> Picture:
        fitted = self.fit(Clip(picture[None], None, self.clip.frame_rate)).frames
        assert fitted is not None, "a clip with frames keeps them"
        return fitted[0]

    def _sound(self, source: Source, part: Part) -> tuple[Iterator[Sound], int]:
        """Return the sound at the model's rate and channels in blocks, and the frames it lasts."""
        rate, channels = self.clip.sample_rate, self.clip.num_channels
        first = floor_frames(part.start, Fraction(rate))
        if isinstance(source, Clip):
            if source.waveform is None:
                raise SoundreelError("the clip given as audio has none")
            alone = Clip(None, source.waveform, source.frame_rate, source.sample_rate)
            whole = alone.resample(sample_rate=rate, num_channels=channels).waveform
            assert whole is not None, "a clip with sound keeps it"
            rest = whole[:, first:]

            def read() -> Iterator[Sound]:
                return iter([rest])

        else:
            from soundreel.media.decode import iter_audio

            def read() -> Iterator[Sound]:
                return iter_audio(source, sample_rate=rate, start=part.start, num_channels=channels)

        total = sum(block.shape[1] for block in read())
        length = part.length(part.start + Fraction(total, rate))
        return first_samples(read(), round(length * rate)), max(
            1, ceil(length * self.clip.frame_rate)
        )


def floor_frames(start: Fraction, rate: Fraction) -> int:
    """Return the index of the frame that is shown, or the sample that is taken, at a time."""
    return int(start * rate)
