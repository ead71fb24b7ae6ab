"""Files and folders that appear whole or not at all; folders held by one process; checksums.

Everything is written under a temporary name beside its place, `.NAME.HOST-PID-COUNT.part`, handed
to the disk, and renamed. A killed process leaves the temporary name, never half of a file; `sweep`
removes such leftovers, which it knows from what a living process is still writing.
"""

import ctypes
import errno
import itertools
import os
import platform
import re
import shutil
import stat
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from soundreel.locks import FolderInUseError, lock

LOCK_FILE = ".lock"
_DAY_S = 86_400.0
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-\d+\.(?P<kind>part|old)"
)
_OF_OLDER_RELEASES = re.compile(
    r"\.writing-\d{9}|\.(model|component)-(old-)?[a-z0-9_]{8}|\..+\.\d+\.(part|tmp)"
    r"|\.(log\.jsonl|config\.json)\.tmp|(manifest\.jsonl|dataset\.json|skipped\.csv)\.tmp"
)
_count = itertools.count()
_written: set[str] = set()  # temporary names that this process is writing


class FileError(OSError):
    """A file or folder cannot be written; the message says which one, why, and what to do."""


def write_text(path: Path, text: str) -> None:
    """Write a whole text file (UTF-8, line ends as given), or leave what is there.

    Raises:
        FileError: it cannot be written.
    """
    with writing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; it takes the name `path` when the block ends well.

    Otherwise it vanishes, and what was at `path` stays. The file gets ordinary permissions,
    whatever the library that writes it would give.

    Raises:
        FileError: it cannot be written.
    """
    path = Path(path)
    temporary = _temporary_name(path, "part")
    try:
        with writing_errors(path):
            temporary.touch(exist_ok=False)
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(mode)
            _flush(temporary)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _written.discard(temporary.name)


@contextmanager
def writing_folder(target: Path, *, marker: str = "") -> Iterator[Path]:
    """Yield a temporary folder to fill; it takes the name `target` when the block ends well.

    Args:
        marker: a file by which a folder at `target` is known as one that may be replaced; without
            it, only an empty folder is.

    Raises:
        FileError: it cannot be written, or something else is at `target`.
        FolderInUseError: another process is writing there.
    """
    target = Path(target)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FileError(f"{target}: exists and is no folder; choose another name")
    if target.exists() and any(target.iterdir()):
        if not marker:
            raise FileError(f"{target}: exists and is not empty; choose another name")
        if not (target / marker).is_file():
            raise FileError(f"{target}: exists and holds no {marker}; choose another name")
    with writing_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with lock(target.with_name(f".{target.name}{LOCK_FILE}"), target):
            sweep(target.parent, only=target.name)
            temporary = _temporary_name(target, "part")
            try:
                temporary.mkdir()
                yield temporary
                for path in temporary.rglob("*"):
                    if path.is_file():
                        _flush(path)
                replace_folder(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
                _written.discard(temporary.name)


def replace_folder(source: Path, target: Path) -> None:
    """Give the folder `source` the name `target`, and remove the folder that had it.

    Where the system can exchange two names (Linux, macOS), there is a whole folder at `target` at
    every moment. Elsewhere the old one lies aside for a moment; after a crash just then, `sweep`
    puts it back.
    """
    if not target.exists():
        source.rename(target)
    elif _exchange(source, target):
        shutil.rmtree(source)
    else:
        aside = _temporary_name(target, "old")
        target.rename(aside)
        source.rename(target)
        shutil.rmtree(aside)
        _written.discard(aside.name)
    _flush(target.parent)


def sweep(folder: Path, *, only: str = "", recursive: bool = False) -> list[Path]:
    """Remove what killed processes left unfinished in a folder, and return it.

    What a living process on this host writes is left alone, and what one on another host may still
    write: leftovers of other hosts are removed a day after their last change.

    Args:
        only: leftovers of this file or folder alone.
        recursive: in all folders below too, and leftovers of older releases, which do not tell who
            wrote them: for folders that belong to one program, under their lock.
    """
    found = [path for path in folder.rglob(".*") if path.name != LOCK_FILE] if recursive else []
    if recursive:
        found += folder.rglob("*.tmp")
    elif folder.is_dir():
        found = [path for path in folder.iterdir() if path.name.startswith(".")]
    removed = []
    for path in sorted(found):
        match = _TEMPORARY.fullmatch(path.name)
        if match and (only in ("", match["name"])) and not _is_being_written(path, match):
            target = path.with_name(match["name"])
            if match["kind"] == "old" and not target.exists():
                path.rename(target)
                continue
        elif match or not (recursive and _OF_OLDER_RELEASES.fullmatch(path.name)):
            continue
        _remove(path)
        removed.append(path)
    return removed


def is_own(name: str) -> bool:
    """Return whether a file is the lock of its folder, or something that is being written."""
    return name == LOCK_FILE or _TEMPORARY.fullmatch(name) is not None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, made if absent, for this process alone; sweep it first.

    A killed process holds nothing; nor do processes that were forked from the holder.

    Raises:
        FolderInUseError: another process holds it, and which.
        FileError: it cannot be written.
    """
    folder = Path(folder)
    with writing_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / LOCK_FILE, folder):
            sweep(folder, recursive=True)
            yield


@contextmanager
def writing_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a forbidden folder and the like into a `FileError` that names `path`.

    Errors about other files pass as they are.
    """
    try:
        yield
    except (FileError, FolderInUseError):
        raise
    except OSError as error:
        about = Path(error.filename) if isinstance(error.filename, str) else path
        if about not in (path, path.parent) and not _written & set(about.parts):
            raise
        raise FileError(
            f"{path}: cannot be written ({error.strerror}); {_advice(error)}"
        ) from error
    except SafetensorError as error:
        if "I/O" not in str(error) and "os error" not in str(error):
            raise
        raise FileError(f"{path}: cannot be written ({error}); check the free space") from error


def checksum(*parts: bytes | memoryview, start: int = 0) -> int:
    """Return the CRC-32 of bytes, one buffer after the other; `start` is that of what comes before.

    It finds accidental damage; it is no protection against intent.
    """
    value = start
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def file_checksum(path: Path) -> str:
    """Return the CRC-32 of a file's content, as eight hexadecimal digits."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def _temporary_name(path: Path, kind: str) -> Path:
    name = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}-{next(_count)}.{kind}")
    _written.add(name.name)
    return name


def _is_being_written(path: Path, match: re.Match[str]) -> bool:
    if match["host"] != _HOST:
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime < _DAY_S
        return False
    pid = int(match["pid"])
    if pid == os.getpid():
        return path.name in _written
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # it lives, under another user
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; False where the system or file system cannot."""
    library: Any = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    exchange, swap = 2, 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(*names, swap)
        else:
            here = -100  # AT_FDCWD: relative names start at the working folder
            failed = library.renameat2(here, names[0], here, names[1], exchange)
    except AttributeError:
        return False
    code = ctypes.get_errno()
    if failed and code not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        raise OSError(code, os.strerror(code), str(second))
    return not failed


os.register_at_fork(after_in_child=_written.clear)


def _flush(path: Path) -> None:
    """Hand a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _advice(error: OSError) -> str:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "free some space" if is_full else "choose a folder that you may write to"
