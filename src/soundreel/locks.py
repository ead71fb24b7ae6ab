"""Locks that processes hold on folders, and that say who holds them."""

import errno
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_held: set[int] = set()  # descriptors of the locks that this process holds


class FolderInUseError(OSError):
    """Another process holds the lock of a folder; the message says which one."""


@contextmanager
def lock(path: Path, folder: Path) -> Iterator[None]:
    """Hold the lock file `path`, which says who holds `folder`; it is removed in the end.

    A killed process holds nothing, nor do processes that were forked from the holder.

    Raises:
        FolderInUseError: another process holds it.
        OSError: the lock file cannot be written.
    """
    descriptor = _opened(path, folder)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: nobody else can hold it under this name
        _held.discard(descriptor)
        os.close(descriptor)


def _opened(path: Path, folder: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise FolderInUseError(
                f"{folder}: in use by {holder}; wait until it is done, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(descriptor)
                raise
            # A file system without locks; the line in the file still tells who writes here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                break
        os.close(descriptor)  # its last holder has removed it meanwhile
    _held.add(descriptor)
    about = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:1000],
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(about).encode() + b"\n", 0)
    return descriptor


def _holder(content: bytes) -> str:
    try:
        about = json.loads(content)
        return (
            f"process {about['pid']} on {about['host']} since {about['since']} "
            f"({str(about['command'])[:200]})"
        )
    except (ValueError, TypeError, KeyError):
        return "another process"


def _close_locks_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_locks_in_child)
