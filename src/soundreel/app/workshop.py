"""Actions of the web page, without the page: settings and uploads in, files out.

Every action belongs to a visitor (any string) and can be cancelled by that name. Nothing is kept
but files in one folder, which the owner of the workshop deletes.
"""

import tempfile
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from soundreel.app.results import Made, about_clip, keep_clip, keep_film, target_in
from soundreel.app.turns import Turns
from soundreel.app.uploads import Limits, UploadError, readable, stored_bytes
from soundreel.clip import Clip, Seconds
from soundreel.errors import SoundreelError
from soundreel.film_clock import Modality, exact_seconds
from soundreel.film_file import FilmRequest, check_film, write_film
from soundreel.media.fragments import live_mp4
from soundreel.metrics.streams import curves_of, open_stream
from soundreel.metrics.sync.score import Sync, sync_of_curves
from soundreel.metrics.sync.signals import SyncError
from soundreel.metrics.timeline import curves_svg, standalone
from soundreel.protocols import Pipeline, Progress, Upscaler, with_options

LIVE_LENGTH = Fraction(3600)
"""Seconds after which a film that plays while it is made ends."""
MAX_LARGE_PIXELS = 1024 * 1024
"""Pixels of an enlarged frame: more takes hours on a CPU."""


class Workshop:
    """A model, perhaps an upscaler, and a folder for what they make.

    Args:
        folder: files go below it; the caller deletes it.
        precision: of the networks; None is the models' own.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        folder: Path,
        *,
        upscaler: Upscaler | None = None,
        limits: Limits | None = None,
        precision: str | None = None,
    ) -> None:
        self._fixed = {} if precision is None else {"precision": precision}
        with_options(pipeline.options, self._fixed)  # a model that cannot generate stops here
        self.pipeline = pipeline
        self.upscaler = upscaler
        self.limits = Limits() if limits is None else limits
        self._folder = folder
        self._turns = Turns()
        self._example: Made | None = None
        self._example_turn = threading.Lock()

    @property
    def makes_films(self) -> bool:
        """Tell whether results can be longer than the model's clips, and parts can be chosen."""
        return hasattr(self.pipeline, "stream")

    def cancel(self, visitor: str) -> Made | None:
        """Stop what this visitor started, see `Turns.cancel`."""
        return self._turns.cancel(visitor)

    def generate(
        self,
        visitor: str,
        *,
        label: str | None = None,
        text: str = "",
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Made:
        """Make a clip from nothing.

        Args:
            label: name of a class; None makes anything.
            text: a caption; empty makes anything.
            options: as the model declares them; those left out or None are its own defaults.

        Raises:
            CancelledError: `cancel` was called.
            SoundreelError: a setting is out of range.
        """
        asked = self._asked(label, text, options)
        with self._turns.working(visitor, progress) as work:
            (clip,) = self.pipeline.generate(seed=seed, **asked, progress=work.step)
        return keep_clip(self._new_folder(), clip, about_clip(asked, seed))

    def film(
        self,
        visitor: str,
        *,
        video: str | None = None,
        audio: str | None = None,
        after: str | None = None,
        duration_s: Seconds | None = None,
        start_s: Seconds = 0.0,
        modality: Modality = "both",
        is_model_size: bool = False,
        label: str | None = None,
        text: str = "",
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Made:
        """Make a film from nothing or after an upload, or sound or pictures for an upload.

        It is written as it is made. The picture of a given video and the sound of a given file are
        its own, unless the model's size is asked for.

        Args:
            duration_s: of the whole film; None is to the end of what is given.
            start_s: second of `video` or `audio` at which the film begins.
            modality: what of `after` goes on.

        Raises:
            UploadError: an upload or a length cannot be used.
            CancelledError: `cancel` was called before anything was made.
            SoundreelError: the model makes no such film, or a setting is out of range.
        """
        if video is None and audio is None and duration_s is None:
            raise UploadError("give the length of the film in seconds")
        self.limits.check_film(duration_s)
        self._check_uploads(video, audio, after, start_s, duration_s)
        asked = self._asked(label, text, options)
        request = FilmRequest(
            video=None if video is None else Path(video),
            audio=None if audio is None else Path(audio),
            after=None if after is None else Path(after),
            duration=None if duration_s is None else exact_seconds(duration_s),
            start=exact_seconds(start_s),
            modality=modality,
            is_model_size=is_model_size,
            options=asked,
        )
        return self._write(visitor, request, seed, progress)

    def _write(
        self, visitor: str, request: FilmRequest, seed: int, progress: Progress | None
    ) -> Made:
        films = check_film(request, self.pipeline)
        about = about_clip(request.options, seed)
        with readable(str(request.video or request.audio or request.after)):
            if films is None:
                with self._turns.working(visitor, progress) as work:
                    whole = request.options | request.whole
                    (clip,) = self.pipeline.generate(seed=seed, **whole, progress=work.step)
                return keep_clip(self._new_folder(), clip, about)
            path = target_in(self._new_folder(), self.pipeline.clip.sample_rate)
            with self._turns.working(visitor, progress) as work:
                write_film(
                    request,
                    films,
                    path,
                    seed=seed,
                    advance=work.tell,
                    comment=about,
                    is_stopped=work.stop.is_set,
                )
                is_own = request.video is not None and not request.is_model_size
                stopped = ", stopped early" if work.stop.is_set() else ""
                work.made = keep_film(path, f"{about}{stopped}", is_own_picture=is_own)
        return work.made

    def live(
        self, *, label: str | None = None, text: str = "", seed: int = 0, **options: Any
    ) -> tuple[Callable[[], Iterator[bytes]], str]:
        """Return what begins an MP4 that is made as it is read, and what makes it in words.

        Between two of its pieces others may have the network.

        Args:
            label, text, options: as for `generate`.

        Raises:
            SoundreelError: the model makes no such film, or a setting is out of range.
        """
        asked, spec = self._asked(label, text, options), self.pipeline.clip
        films = check_film(FilmRequest(duration=LIVE_LENGTH, options=asked), self.pipeline)
        if films is None:
            raise SoundreelError("this model makes clips of one length and no films")

        def begin() -> Iterator[bytes]:
            pieces = self._turns.each(films.stream(seed=seed, duration_s=LIVE_LENGTH, **asked))
            return live_mp4(
                ((piece.frames, piece.waveform) for piece in pieces),
                frame_rate=spec.frame_rate,
                sample_rate=spec.sample_rate,
            )

        return begin, about_clip(asked, seed)

    def example(self) -> Made:
        """Return a clip to show to whoever opens the page, made once."""
        with self._example_turn:
            if self._example is None or not self._example.clip.is_file():
                names = self.pipeline.class_names
                self._example = self.generate("the page", label=names[0] if names else None)
            return self._example

    def upscale(
        self,
        visitor: str,
        upload: str,
        *,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Made:
        """Make an uploaded clip's frames larger.

        Args:
            options: as the upscaler declares them; those left out or None are its own defaults.

        Raises:
            UploadError: the upload cannot be used.
            CancelledError: `cancel` was called.
            SoundreelError: there is no upscaler, or the number of steps is impossible.
        """
        if self.upscaler is None:
            raise SoundreelError("no upscaler was given: start the page with --upscaler MODEL")
        options |= self._fixed
        with_options(self.upscaler.options, options)
        length, info = self.pipeline.clip.duration, self.limits.check_file(upload, "video")
        self.limits.check_memory(info, float(length))
        height, width = (size * self.upscaler.scale for size in (info.height, info.width))
        if height * width > MAX_LARGE_PIXELS:
            raise UploadError(
                f"enlarged, this picture would have {width}x{height} pixels; upload one as small as"
                f" the model makes them, about {self.upscaler.small_size} pixels"
            )
        with readable(upload):
            clip = Clip.load_beginning(upload, length)
        with self._turns.working(visitor, progress) as work:
            large = self.upscaler.upscale_clip(clip, seed=seed, progress=work.step, **options)
        return keep_clip(self._new_folder(), large, f"{self.upscaler.scale} times as large")

    def measure(self, upload: str) -> tuple[Sync, str]:
        """Return the sync of an uploaded video, and a drawing of what starts when, as SVG.

        Raises:
            UploadError: the upload cannot be used, or is too short or too coarse to tell.
        """
        info = self.limits.check_file(upload, "video")
        if not info.has_audio:
            raise UploadError("this video has no sound; there is no sync to measure")
        self.limits.check_length(info)
        try:
            with readable(upload):
                curves = curves_of(open_stream(upload, self.limits.duration_s))
        except SyncError as error:
            raise UploadError(str(error)) from error
        svg = standalone(curves_svg(curves, width=960, height=192))
        return sync_of_curves(curves.motion, curves.sound, curves.frame_rate), svg

    def _check_uploads(
        self,
        video: str | None,
        audio: str | None,
        after: str | None,
        start_s: Seconds,
        duration_s: Seconds | None,
    ) -> None:
        for wanted, path in (("video", video), ("audio", audio)):
            if path is not None:
                info = self.limits.check_file(path, wanted)
                self.limits.check_part(info, start_s, duration_s)
        if after is not None:
            info = self.limits.check_file(after, "video")
            self.limits.check_length(info)
            self.limits.check_memory(info, self.limits.duration_s)

    def _asked(self, label: str | None, text: str, options: dict[str, Any]) -> dict[str, Any]:
        """Return what the model's `generate` is told beside the seed and what is given."""
        said = {"label": label, "text": text or None}
        return {name: value for name, value in said.items() if value is not None} | (
            options | self._fixed
        )

    def _new_folder(self) -> Path:
        if stored_bytes(self._folder) > 1e6 * self.limits.stored_mb:
            raise UploadError(
                f"this page keeps {self.limits.stored_mb:g} MB, which are used up; try again in an "
                "hour, when old files are gone"
            )
        return Path(tempfile.mkdtemp(dir=self._folder))
