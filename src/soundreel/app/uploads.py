"""Limits of what visitors may upload and ask for, checked by size and header before any reading."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from soundreel.clip import Seconds
from soundreel.errors import SoundreelError
from soundreel.media.errors import MediaError
from soundreel.media.probe import MediaInfo, probe


class UploadError(SoundreelError):
    """An upload that cannot be used; the message is for the visitor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of what visitors may ask for.

    Attributes:
        upload_mb: size of an uploaded file in megabytes (10^6 bytes).
        duration_s: length of an upload, of the chosen part of one, and of a film.
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

    def check_file(self, path: str, wanted: str) -> MediaInfo:
        """Return what an upload's header tells.

        Args:
            wanted: "video" or "audio", which the file must have.

        Raises:
            UploadError: it is too large, cannot be read, or lacks what is wanted.
        """
        megabytes = Path(path).stat().st_size / 1e6
        if megabytes > self.upload_mb:
            raise UploadError(
                f"this file has {megabytes:.0f} MB; at most {self.upload_mb:g} are taken"
            )
        with readable(path):
            info = probe(path)
        if not (info.has_video if wanted == "video" else info.has_audio):
            missing = "picture" if wanted == "video" else "sound"
            raise UploadError(f"this file has no {missing}; choose one that has")
        return info

    def check_part(self, info: MediaInfo, start_s: Seconds, duration_s: Seconds | None) -> None:
        """Raise `UploadError` where the part of an upload is too long, or not within it."""
        end = float("inf") if info.duration is None else float(info.duration)
        if start_s >= end:
            raise UploadError(f"this file lasts {end:.1f} s; begin before its end")
        length = end - float(start_s) if duration_s is None else duration_s
        if length == float("inf"):
            raise UploadError("this file does not tell its length; choose a part of it")
        if length > self.duration_s:
            raise UploadError(
                f"this file lasts {end:.0f} s; at most {self.duration_s:g} s are taken, so choose"
                " a part of it"
            )

    def check_length(self, info: MediaInfo) -> None:
        """Raise `UploadError` where an upload is too long to be taken whole."""
        if info.duration is not None and info.duration > self.duration_s:
            raise UploadError(
                f"this file lasts {float(info.duration):.0f} s; at most {self.duration_s:g} s are"
                " taken, so cut it first"
            )

    def check_memory(self, info: MediaInfo, duration_s: float) -> None:
        """Raise `UploadError` where the first pictures of an upload take too much memory."""
        seconds = duration_s if info.duration is None else min(duration_s, float(info.duration))
        pictures = seconds * float(info.frame_rate or 0)
        if 3e-9 * info.height * info.width * pictures > self.decoded_gb:
            raise UploadError(
                f"{info.width}x{info.height} pixels for so long are too much here; make the "
                "picture smaller, or cut the file"
            )

    def check_film(self, duration_s: Seconds | None) -> None:
        """Raise `UploadError` unless a film may have this length."""
        if duration_s is not None and not 0 < duration_s <= self.duration_s:
            raise UploadError(
                f"the length must be more than 0 s and at most {self.duration_s:g} s here, got"
                f" {float(duration_s):g} s"
            )


@contextmanager
def readable(path: str) -> Generator[None]:
    """Tell of a file that cannot be read without naming its place on this machine."""
    try:
        yield
    except MediaError as error:
        if not str(error).startswith(path):
            raise
        reason = str(error).removeprefix(f"{path}: ")
        raise UploadError(f"this file cannot be read as a video or a sound ({reason})") from error


def stored_bytes(folder: Path) -> int:
    """Return the size of all files in a folder and below."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # old files are deleted meanwhile
            total += path.stat().st_size * path.is_file()
    return total
