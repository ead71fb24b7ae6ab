"""Write a film while it is made, of any length in constant memory; keep a track that was given.

Pieces go into a file of their own, `NAME.part.mp4`, in fragments: whatever stops the process, it
plays up to the border of a piece. When the film ends, or is stopped with Ctrl-C, its tracks are
copied without encoding them again into an ordinary file, beside the picture or the sound of
somebody's own file where one was given, and that file takes the name.
"""

from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.errors import SoundreelError
from soundreel.media.combine import FORMATS, GivenTrack, combine
from soundreel.media.errors import MediaError
from soundreel.media.fragments import Fragments
from soundreel.media.tracks import AAC_RATES, WAV, check_rates


class FilmWriter:
    """Write pieces of a film as they come: a context manager with `write`.

    Where the block ends well or by Ctrl-C, the file at `path` holds all pieces that were written;
    after another error it is as it was before.

    Args:
        path: ends in .mp4 (H.264 and AAC), .mkv (FFV1 and PCM, every bit kept) or .wav (sound
            alone).
        frame_rate, sample_rate: of the pieces.
        picture, sound: the track of another file that takes the place of the pieces' own.
        num_samples: sound beyond it is left out; None keeps all.
        comment: stored in the file's metadata.
        enlarge: write each pixel of the pieces as a block of so many rows and columns (.mp4).

    Raises:
        SoundreelError: the name ends otherwise, or AAC has no such sample rate.
        MediaError: (in the block) the file cannot be written, or a given one cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        frame_rate: Fraction | int,
        sample_rate: int,
        *,
        picture: GivenTrack | None = None,
        sound: GivenTrack | None = None,
        num_samples: int | None = None,
        comment: str = "",
        enlarge: int = 1,
    ) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in FORMATS:
            raise SoundreelError(f"{path}: a film is saved as {', '.join(FORMATS)}, got {suffix!r}")
        check_rates(Fraction(frame_rate), sample_rate)
        if suffix == ".mp4" and sound is None and sample_rate not in AAC_RATES:
            raise SoundreelError(
                f"AAC in MP4 has sample rates {AAC_RATES}, got {sample_rate}; write .mkv"
            )
        self._kind = FORMATS[suffix]
        self._frame_rate, self._sample_rate = Fraction(frame_rate), sample_rate
        self._picture, self._sound, self._limit = picture, sound, num_samples
        self._comment, self._enlarge = comment, enlarge
        self._part = self.path.with_name(f"{self.path.stem}.part{suffix}")
        self._made: Fragments | None = None

    def __enter__(self) -> "FilmWriter":
        return self

    def write(
        self,
        frames: UInt8[np.ndarray, "frame height width 3"] | None,
        waveform: Float32[np.ndarray, "channel sample"] | None,
    ) -> None:
        """Append a piece. All pieces have the tracks, sizes and channels of the first.

        Raises:
            SoundreelError: there is nothing to write, or pieces differ.
            MediaError: the file cannot be written.
        """
        frames = None if self._picture is not None or self._kind is WAV else frames
        waveform = None if self._sound is not None else waveform
        if self._limit is not None and waveform is not None:
            written = 0 if self._made is None else self._made.num_samples
            waveform = waveform[:, : max(0, self._limit - written)]
        if frames is None and waveform is None:
            raise SoundreelError(f"{self.path}: there is neither a frame nor a sample to write")
        try:
            self._fragments().write(frames, waveform)
        except (av.error.FFmpegError, OSError) as error:
            raise _cannot_write(self.path, error) from error

    def _fragments(self) -> Fragments:
        """Return the encoder into the part file, which the first piece opens."""
        if self._made is None:
            self._file = self._part.open("wb", buffering=0)
            self._made = Fragments(
                self._file.write,
                self._kind,
                self._frame_rate,
                self._sample_rate,
                name=self.path,
                enlarge=self._enlarge,
            )
        return self._made

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._made is None:
                return
            self._made.finish()
            self._file.close()
            if kind is None or issubclass(kind, KeyboardInterrupt):
                made = GivenTrack(self._part)
                picture = self._picture or (made if self._made.has_video else None)
                sound = self._sound or (made if self._made.has_audio else None)
                combine(self.path, picture, sound, comment=self._comment)
        except (av.error.FFmpegError, OSError) as problem:
            raise _cannot_write(self.path, problem) from problem
        finally:
            self._part.unlink(missing_ok=True)


def _cannot_write(path: Path, error: Exception) -> MediaError:
    cause = getattr(error, "strerror", None) or str(error)
    return MediaError(path, f"cannot be written ({cause})", "check the folder and the free space")
