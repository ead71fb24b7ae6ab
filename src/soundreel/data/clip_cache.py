"""Keep clips of remote data sets on the local disk: those that were used last, up to a size.

    CACHE/clips/ab/abcd....mkv       a clip under the SHA-256 of its bytes

A clip's folder follows from its hash, and each of the 256 folders keeps to its share of the size.
So no process needs to know of the others: training processes and their workers share one cache.
"""

import math
import os
import re
from contextlib import suppress
from pathlib import Path

from soundreel.data.manifest import DataError
from soundreel.files import sweep, writing_file

FOLDER_VARIABLE, SIZE_VARIABLE = "SOUNDREEL_CACHE", "SOUNDREEL_CACHE_GB"
DEFAULT_GB = 20.0
NUM_FOLDERS = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_folder() -> Path:
    """Return where copies of remote data lie: $SOUNDREEL_CACHE, else ~/.cache/soundreel."""
    return Path(os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "soundreel").resolve()


def cache_bytes() -> int:
    """Return how many bytes of clips are kept: $SOUNDREEL_CACHE_GB (10^9 bytes), else 20.

    Raises:
        DataError: the variable is no such number.
    """
    text = os.environ.get(SIZE_VARIABLE, "")
    try:
        size = float(text) if text else DEFAULT_GB
    except ValueError:
        size = math.nan
    if not 0 <= size < 1e9:
        raise DataError(f"{SIZE_VARIABLE} is a number of gigabytes, 0 to keep none; got {text!r}")
    return int(size * 1e9)


class ClipCache:
    """Keeps clips by the hash of their content; the least recently used make room for new ones.

    Args:
        max_bytes: of all clips together. Several processes that write at once may exceed it by the
            clips that they are writing. A clip larger than a folder's share is not kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._share = max_bytes // NUM_FOLDERS

    def get(self, sha256: str, num_bytes: int) -> bytes | None:
        """Return the clip as it lies on the disk, or None; the caller compares it with its hash."""
        path = self._path(sha256)
        try:
            if path.stat().st_size != num_bytes:
                return None
            content = path.read_bytes()
            os.utime(path)  # used just now
        except OSError:  # absent, or another process has just removed it
            return None
        return content

    def put(self, sha256: str, content: bytes) -> None:
        """Keep a clip that has been compared with its hash.

        Raises:
            FileError: it cannot be written.
        """
        path = self._path(sha256)
        if len(content) > self._share:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._make_room(path.parent, self._share - len(content))
        with writing_file(path) as temporary:
            temporary.write_bytes(content)

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise DataError(f"the manifest is damaged: {sha256[:80]!r} is no SHA-256")
        return self._folder / sha256[:2] / f"{sha256}.mkv"

    def _make_room(self, folder: Path, room: int) -> None:
        """Remove what was not used for the longest time, until what is left fits."""
        sweep(folder)
        found = []
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):  # another process has just removed or renamed it
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime_ns, entry.name, status.st_size))
        total = sum(size for _, _, size in found)
        for _, name, size in sorted(found):
            if total <= room:
                return
            if not name.startswith("."):  # those are being written
                (folder / name).unlink(missing_ok=True)
                total -= size
