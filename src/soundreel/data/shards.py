"""Tar shards in WebDataset layout: members KEY.json and KEY.mkv, consecutive for each clip.

They are written append-only, so that an interrupted run continues by cutting the open shard back to
the last clip that is known to be complete; and read by position, so that any clip can be had
without walking the archive.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from soundreel.data.clip_cache import ClipCache, cache_bytes, cache_folder
from soundreel.data.manifest import SHARDS_FOLDER, ClipRecord, DataError
from soundreel.data.remote import remote_url, shard_range

_END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)


def shard_name(split: str, index: int) -> str:
    return f"{split}-{index:06d}.tar"


def padded(num_bytes: int) -> int:
    """Return bytes that a member's content occupies in a tar file."""
    return -(-num_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _header(name: str, num_bytes: int) -> bytes:
    header = tarfile.TarInfo(name)
    header.size = num_bytes
    return header.tobuf()


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(padded(len(content)) - len(content))


class ShardWriter:
    """Appends clips to the shards of one split.

    Args:
        root: the data set's folder.
        max_bytes: a new shard is begun when the current one has reached this size.
        last: the last clip that is known to be complete; anything after it is cut off.

    Raises:
        DataError: the split's name cannot be one of a file, or the shard lacks that clip.
    """

    def __init__(
        self, root: Path, split: str, *, max_bytes: int, last: ClipRecord | None = None
    ) -> None:
        if not split.isidentifier():
            raise DataError(f"{root}: {split!r} cannot be the name of a split")
        self._folder = root / SHARDS_FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._split = split
        self._max_bytes = max_bytes
        self._index = 0
        end = 0
        if last is not None:
            self._index = int(Path(last.shard).stem.rsplit("-", 1)[1])
            end = last.offset + padded(last.num_bytes)
        for stray in self._folder.glob(f"{split}-*.tar"):
            if stray.name > shard_name(split, self._index):
                stray.unlink()
        self._file = self._open(end)

    def _open(self, end: int) -> io.BufferedRandom:
        path = self._folder / shard_name(self._split, self._index)
        path.touch()
        file = path.open("r+b")
        size = file.seek(0, os.SEEK_END)
        if size < end:
            file.close()
            raise DataError(
                f"{path} has {size} bytes but the journal expects {end}: the shard was changed "
                "after it was written; prepare again with --overwrite"
            )
        file.truncate(end)
        file.seek(end)
        return file

    def add(self, key: str, sidecar: bytes, video: bytes) -> tuple[str, int, int]:
        """Append one clip.

        Returns:
            shard file relative to the root, offset of the video's bytes, their number.
        """
        if self._file.tell() >= self._max_bytes:
            self.close()
            self._index += 1
            self._file = self._open(0)
        self._append(f"{key}.json", sidecar)
        offset = self._append(f"{key}.mkv", video)
        return f"{SHARDS_FOLDER}/{shard_name(self._split, self._index)}", offset, len(video)

    def _append(self, name: str, content: bytes) -> int:
        header = _header(name, len(content))
        offset = self._file.tell() + len(header)
        self._file.write(_member(name, content))
        return offset

    def flush(self) -> None:
        """Hand all that was added to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the end-of-archive mark."""
        if not self._file.closed:
            self._file.write(_END_OF_ARCHIVE)
            self.flush()
            self._file.close()


class ShardWriters(dict[str, ShardWriter]):
    """One writer a split, for as long as the block lasts.

    Args:
        splits: those that will be written to.
        written: clips known to be complete, in the order in which they were written.
    """

    def __init__(
        self, root: Path, splits: Iterable[str], *, max_bytes: int, written: Iterable[ClipRecord]
    ) -> None:
        last = {record.split: record for record in written}
        super().__init__(
            (split, ShardWriter(root, split, max_bytes=max_bytes, last=last.get(split)))
            for split in sorted({*splits, *last})
        )

    def __enter__(self) -> "ShardWriters":
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self.values():
            writer.close()


def sidecar(record: ClipRecord, label: str) -> bytes:
    """Return the content of KEY.json: the record without its place, and the name of its class."""
    left_out = ("shard", "offset", "num_bytes", "label")
    about = {name: value for name, value in asdict(record).items() if name not in left_out}
    return json.dumps(about | {"label": label}).encode()


class ShardReader:
    """Reads clips by position; may be shared between forked workers or pickled.

    Args:
        root: the data set's folder, or the copy of a remote one's lists (see `remote.data_folder`).
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._url = remote_url(root)
        self._cache = ClipCache(cache_folder() / "clips", cache_bytes()) if self._url else None
        self._descriptors: dict[str, int] = {}

    def read(self, record: ClipRecord) -> bytes:
        """Return the bytes of KEY.mkv, which are compared with the record's hash.

        Raises:
            DataError: the shard is absent, no regular file within the data set, or too short, or
                the clip has changed since it was written.
            FileError: a clip of a remote data set cannot be kept in the cache.
        """
        kept = self._cache.get(record.sha256, record.num_bytes) if self._cache else None
        if kept is not None and hashlib.sha256(kept).hexdigest() == record.sha256:
            return kept
        content = self._bytes(record, record.offset, record.num_bytes)
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise self._damaged(record)
        if self._cache:
            self._cache.put(record.sha256, content)
        return content

    def verify(self, record: ClipRecord, label: str) -> None:
        """Compare all of a clip's bytes in the shard, tar headers and KEY.json too.

        Args:
            label: name of the clip's class; "" for none.

        Raises:
            DataError: as `read`.
        """
        about = sidecar(record, label)
        before = _member(f"{record.key}.json", about) + _header(
            f"{record.key}.mkv", record.num_bytes
        )
        end = record.offset + record.num_bytes
        self.read(record)
        padding = self._bytes(record, end, padded(record.num_bytes) - record.num_bytes)
        start = record.offset - len(before)
        if start < 0 or self._bytes(record, start, len(before)) != before or any(padding):
            raise self._damaged(record)

    def _bytes(self, record: ClipRecord, start: int, count: int) -> bytes:
        if self._url:
            return shard_range(self._url, record.shard, start, count)
        if record.shard not in self._descriptors:
            self._descriptors[record.shard] = self._opened(record)
        descriptor = self._descriptors[record.shard]
        if start + count > os.fstat(descriptor).st_size:
            raise DataError(
                f"{self._root / record.shard} ends before clip {record.key}; prepare the set again"
            )
        return os.pread(descriptor, count, start)

    def _opened(self, record: ClipRecord) -> int:
        path = self._root / record.shard
        try:
            resolved = path.resolve(strict=True)
            if not resolved.is_relative_to(self._root.resolve()) or not resolved.is_file():
                raise DataError(f"{path}: a shard must be a regular file within the data set")
            return os.open(resolved, os.O_RDONLY)
        except (OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"cannot open shard {path}: {error}") from error

    def _damaged(self, record: ClipRecord) -> DataError:
        return DataError(
            f"{self._url or self._root}/{record.shard}: clip {record.key} is damaged since it was "
            "written; copy the data set again, or prepare it again with --overwrite"
        )

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return vars(self) | {"_descriptors": {}}
