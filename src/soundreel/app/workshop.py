"""Actions of the web page, without the page: settings and uploads in, files out.

Every action belongs to a visitor (any string) and can be cancelled by that name. Nothing is kept
but files in one folder, which the owner of the workshop deletes.
"""

import tempfile
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.media.encode import AAC_RATES
from soundreel.media.errors import MediaError
from soundreel.media.gif import write_gif
from soundreel.media.probe import probe
from soundreel.metrics.sync.score import Sync, measure_sync
from soundreel.metrics.sync.signals import SyncError
from soundreel.metrics.timeline import standalone, timeline_svg
from soundreel.protocols import Pipeline, Progress, Upscaler, with_options

MAX_GIF_FRAMES = 200
MAX_LARGE_PIXELS = 1024 * 1024
"""Pixels of an enlarged frame: more takes hours on a CPU."""


class UploadError(SoundreelError):
    """An upload that cannot be used; the message is for the visitor."""


class CancelledError(Exception):
    """The visitor asked to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of what visitors may ask for.

    Attributes:
        upload_mb: size of an uploaded file in megabytes (10^6 bytes).
        duration_s: length of an uploaded file.
        stored_mb: uploads and results that are kept at a time, in megabytes.
        decoded_gb: memory (10^9 bytes) that the frames of an upload may take once decoded.
    """

    upload_mb: float = 64.0
    duration_s: float = 60.0
    stored_mb: float = 2_000.0
    decoded_gb: float = 2.0

    def __post_init__(self) -> None:
        for name in ("upload_mb", "duration_s", "stored_mb", "decoded_gb"):
            if getattr(self, name) <= 0:
                raise SoundreelError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Made:
    """Files of one action.

    Attributes:
        clip: to play; about: what made it, as Markdown; sheet: frames over the spectrogram of the
            sound; gif: the pictures alone, None if there are too many.
    """

    clip: Path
    about: str
    sheet: Path
    gif: Path | None


def option_label(name: str) -> str:
    """Return what visitors read for the name of an option: "steps" for `num_steps`."""
    return name.replace("num_", "").replace("_", " ")


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
        self.pipeline = pipeline
        self.upscaler = upscaler
        self.limits = Limits() if limits is None else limits
        self._folder = folder
        self._stops: dict[str, threading.Event] = {}
        self._turn = threading.Lock()  # one network, one visitor at a time
        self._example: Made | None = None
        self._example_turn = threading.Lock()

    def cancel(self, visitor: str) -> None:
        """Stop what this visitor started, at its next step."""
        if visitor in self._stops:
            self._stops[visitor].set()

    def generate(
        self,
        visitor: str,
        *,
        video: str | None = None,
        audio: str | None = None,
        label: str | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Made:
        """Make a clip from nothing, for an uploaded video, or for an uploaded sound.

        Args:
            label: name of a class; None makes anything.
            options: as the model declares them; those left out or None are its own defaults.

        Raises:
            UploadError: the upload cannot be used.
            CancelledError: `cancel` was called.
            SoundreelError: a setting is out of range.
        """
        request: dict[str, Any] = {"seed": seed, **options, **self._fixed}
        if label is not None:
            request["label"] = label
        for name, upload in (("video", video), ("audio", audio)):
            if upload is not None:
                request[name] = self._upload(upload, name, self.pipeline.clip.duration_s)
        with self._working(visitor, progress) as step:
            (clip,) = self.pipeline.generate(**request, progress=step)
        kind = [f"class {label}"] if label is not None else []
        settings = [f"{option_label(name)} {value}" for name, value in options.items()]
        return self._keep(clip, ", ".join([*kind, f"seed {seed}", *settings]))

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
        clip = self._upload(upload, "video", self.pipeline.clip.duration_s)
        shape = (0, 0) if clip.frames is None else clip.frames.shape[1:3]
        height, width = (size * self.upscaler.scale for size in shape)
        if height * width > MAX_LARGE_PIXELS:
            raise UploadError(
                f"enlarged, this picture would have {width}x{height} pixels; upload one as small as"
                f" the model makes them, about {self.upscaler.small_size} pixels"
            )
        with self._working(visitor, progress) as step:
            large = self.upscaler.upscale_clip(clip, seed=seed, progress=step, **options)
        return self._keep(large, f"{self.upscaler.scale} times as large")

    def measure(self, upload: str) -> tuple[Sync, Path]:
        """Return the sync of an uploaded video, and a drawing of what starts when.

        Raises:
            UploadError: the upload cannot be used, or is too short or too coarse to tell.
        """
        clip = self._upload(upload, "video", self.limits.duration_s)
        if clip.frames is None or clip.waveform is None:
            raise UploadError("this video has no sound; there is no sync to measure")
        try:
            result = measure_sync(clip.frames, clip.frame_rate, clip.waveform, clip.sample_rate)
        except SyncError as error:
            raise UploadError(str(error)) from error
        target = self._new_folder() / "timeline.svg"
        target.write_text(standalone(timeline_svg(clip, width=960, height=192)))
        return result, target

    def _upload(self, path: str, wanted: str, duration_s: float) -> Clip:
        """Return its first seconds, after a look at its size and header."""
        megabytes = Path(path).stat().st_size / 1e6
        if megabytes > self.limits.upload_mb:
            raise UploadError(
                f"this file has {megabytes:.0f} MB; at most {self.limits.upload_mb:g} are taken"
            )
        try:
            info = probe(path)
            if info.duration is not None and info.duration > self.limits.duration_s:
                raise UploadError(
                    f"this file lasts {float(info.duration):.0f} s; at most "
                    f"{self.limits.duration_s:g} s are taken, so cut it first"
                )
            seconds = duration_s if info.duration is None else min(duration_s, info.duration)
            decoded_gb = 3e-9 * info.height * info.width * float(seconds * (info.frame_rate or 0))
            if decoded_gb > self.limits.decoded_gb:
                raise UploadError(
                    f"{info.width}x{info.height} pixels for so long are too much here; make the "
                    "picture smaller, or cut the file"
                )
            if not (info.has_video if wanted == "video" else info.has_audio):
                missing = "picture" if wanted == "video" else "sound"
                raise UploadError(f"this file has no {missing}; choose one that has")
            return Clip.load_beginning(path, duration_s)
        except MediaError as error:
            reason = str(error).removeprefix(f"{path}: ")
            raise UploadError(
                f"this file cannot be read as a video or a sound ({reason})"
            ) from error

    @contextmanager
    def _working(self, visitor: str, progress: Progress | None) -> Generator[Progress]:
        stop = self._stops[visitor] = threading.Event()

        def step(done: int, total: int) -> None:
            if stop.is_set():
                raise CancelledError
            if progress is not None:
                progress(done, total)

        with self._turn:
            try:
                step(0, 1)
                yield step
            finally:
                if self._stops.get(visitor) is stop:
                    del self._stops[visitor]

    def _new_folder(self) -> Path:
        stored = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        if stored > 1e6 * self.limits.stored_mb:
            raise UploadError(
                f"this page keeps {self.limits.stored_mb:g} MB, which are used up; try again in an "
                "hour, when old files are gone"
            )
        return Path(tempfile.mkdtemp(dir=self._folder))

    def _keep(self, clip: Clip, about: str) -> Made:
        folder = self._new_folder()
        suffix = ".mp4" if clip.sample_rate in AAC_RATES else ".mkv"
        path, sheet, gif = folder / f"soundreel{suffix}", folder / "contact-sheet.png", None
        clip.save(path)
        write_contact_sheet(sheet, [clip], titles=[about])
        if clip.frames is not None and clip.num_frames <= MAX_GIF_FRAMES:
            gif = folder / "soundreel.gif"
            write_gif(gif, clip.frames, clip.frame_rate)
        return Made(path, about, sheet, gif)
