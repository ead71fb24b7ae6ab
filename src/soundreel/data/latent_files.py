"""Files of a latent cache, which tell whether they are damaged: as a whole, and row by row."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from soundreel.checkpoints.component import reading_tensors, tensor_bytes, tensors_checksum
from soundreel.data.dataset import Sample
from soundreel.data.manifest import DataError
from soundreel.errors import SoundreelError
from soundreel.files import checksum, writing_file
from soundreel.json_yaml import read_checked_json
from soundreel.types import AV, LatentSpec

COLUMNS = ("video", "audio", "label", "start_frame")
CACHE_FILE = "cache.json"
CHECKSUM = "checksum"
MOST_OPEN = 64
"""Shards whose keys are kept in memory, 0.1 MB each; another one is opened in 0.2 ms."""


class LatentShard:
    """Reads rows of a shard, each compared with its checksum (older caches have none).

    Args:
        rows: how many there are.
        latents: shape of a row's latents, in float32; None is half precision, of any shape.

    Raises:
        DataError: missing, damaged, or of another size than the cache says.
    """

    def __init__(self, path: Path, rows: int, latents: LatentSpec | None = None) -> None:
        self._path = path
        with reading(path):
            self._file = safe_open(path, "pt")
            self._keys, self._starts = _places(json.loads(self._file.metadata()["keys"]))
            found = {
                name: (part.get_dtype(), *part.get_shape())
                for name, part in ((n, self._file.get_slice(n)) for n in set(self._file.keys()))
            }
        self._has_checksums = CHECKSUM in self._file.metadata()
        expected: dict[str, tuple[Any, ...]]
        expected = {name: ("F16", *found.get(name, ("F16",))[1:]) for name in COLUMNS[:2]}
        if latents is not None:
            expected = {
                "video": ("F32", rows, *latents.video_shape),
                "audio": ("F32", rows, *latents.audio_shape),
            }
        for name in ("label", *(["start_frame"] if self._starts is None else [])):
            expected[name] = ("I64", rows)
        if self._has_checksums:
            expected[CHECKSUM] = ("I64", rows)
        sizes = {len(self._keys), *(shape[1] for shape in found.values() if len(shape) > 1)}
        if found != expected or sizes != {rows}:
            raise damaged(path)

    def row(self, row: int) -> Sample:
        """Return the latents of one row as they are."""
        with reading(self._path):
            names = [name for name in COLUMNS if name != "start_frame" or self._starts is None]
            columns = {name: self._file.get_slice(name)[row] for name in names}
            if self._has_checksums:
                expected = int(self._file.get_slice(CHECKSUM)[row])
                if row_checksum(columns, self._keys[row]) != expected:
                    raise damaged(self._path, f"row {row}, clip {self._keys[row]}, ")
        return Sample(
            av=AV(columns["video"], columns["audio"]),
            label=int(columns["label"]),
            key=self._keys[row],
            start_frame=int(columns["start_frame"] if self._starts is None else self._starts[row]),
        )

    def places(self) -> list[tuple[str, int]]:
        """Return key and start frame of every row; no latent is read."""
        starts = self._starts
        if starts is None:
            with reading(self._path):
                starts = self._file.get_tensor("start_frame").tolist()
        return list(zip(self._keys, starts, strict=True))


class LatentShards:
    """Reads rows of a cache; of its shards, those that were opened last stay open.

    Args:
        count: rows of all shards.
        shard_rows: rows of every shard but the last.
        latents: see `LatentShard`.
    """

    def __init__(
        self, folder: Path, count: int, shard_rows: int, latents: LatentSpec | None = None
    ) -> None:
        self._folder = folder
        self._count = count
        self._shard_rows = shard_rows
        self._latents = latents
        self._opened: dict[int, LatentShard] = {}

    @property
    def paths(self) -> list[Path]:
        """Return the files, there or not."""
        return [shard_path(self._folder, n) for n in range(-(-self._count // self._shard_rows))]

    def row(self, index: int) -> Sample:
        """Return the latents of one row as they are.

        Raises:
            DataError: they are damaged.
            IndexError: there is no such row.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"index {index} of a cache of {self._count} windows")
        number, row = divmod(index, self._shard_rows)
        return self._shard(number).row(row)

    def places(self) -> list[tuple[str, int]]:
        """Return key and start frame of every row; no latent is read."""
        return [place for n in range(len(self.paths)) for place in self._shard(n).places()]

    def _shard(self, number: int) -> LatentShard:
        if number not in self._opened:
            rows = min(self._shard_rows, self._count - number * self._shard_rows)
            opened = LatentShard(shard_path(self._folder, number), rows, self._latents)
            if len(self._opened) >= MOST_OPEN:
                del self._opened[next(iter(self._opened))]
            self._opened[number] = opened
        return self._opened[number]


def shard_path(folder: Path, number: int) -> Path:
    """Return the file of a cache's shard."""
    return folder / f"latents-{number:06d}.safetensors"


def _places(keys: Any) -> tuple[list[str], list[int] | None]:
    """Return the keys of a shard's metadata, in some older caches with start frames.

    Raises:
        TypeError: they are neither.
    """
    if isinstance(keys, list) and all(isinstance(key, str) for key in keys):
        return keys, None
    if not all([type(key), type(start)] == [str, int] for key, start in keys):
        raise TypeError("keys of another kind")
    return [key for key, _ in keys], [start for _, start in keys]


def write_rows(path: Path, latents: AV, samples: Sequence[Sample]) -> None:
    """Write a shard: latents with a batch axis, with label, key and start frame of each sample."""
    tensors = {
        "video": latents["video"].contiguous(),
        "audio": latents["audio"].contiguous(),
        "label": torch.tensor([sample.label for sample in samples]),
        "start_frame": torch.tensor([sample.start_frame for sample in samples]),
    }
    rows_of_columns = zip(*(tensors[name] for name in COLUMNS), strict=True)
    checksums = [
        row_checksum(dict(zip(COLUMNS, row, strict=True)), sample.key)
        for row, sample in zip(rows_of_columns, samples, strict=True)
    ]
    keys = json.dumps([sample.key for sample in samples])
    save_tensors(tensors | {CHECKSUM: torch.tensor(checksums)}, path, keys=keys)


def row_checksum(columns: Mapping[str, Tensor], key: str) -> int:
    """Return the CRC-32 of one window: its columns and its key."""
    return checksum(*(tensor_bytes(columns[name]) for name in COLUMNS), key.encode())


def tensor_checksum(tensor: Tensor) -> int:
    """Return the CRC-32 of a tensor's values."""
    return checksum(tensor_bytes(tensor))


def damaged(path: Path, what: str = "") -> DataError:
    """Return the error that names a damaged file of a cache."""
    return DataError(
        f"{path}: {what}damaged since it was written; remove {path.parent} to make it again"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever reading a damaged file raises into one line.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with reading_tensors(path):
            yield
    except DataError:
        raise
    except (SoundreelError, TypeError, IndexError) as error:
        raise DataError(f"{error}; remove {path.parent} to make it again") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file and compare them with their checksum, if there is one.

    Raises:
        DataError: missing or damaged.
    """
    with reading(path), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    if metadata.get(CHECKSUM, "") not in ("", tensors_checksum(tensors)):
        raise damaged(path)
    return tensors


def verify_cache(folder: Path) -> int:
    """Compare all of a cache with its checksums, file by file and row by row.

    Returns:
        Number of windows.

    Raises:
        DataError: naming the file or row that is damaged.
    """
    read_checked_json(folder / CACHE_FILE, DataError)
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_tensors(path)
        if CHECKSUM not in tensors:  # statistics, or a shard of an older release
            count += len(tensors.get("label", ()))
            continue
        with reading(path), safe_open(path, "pt") as file:
            keys = json.loads(file.metadata()["keys"])
            for row, (key, expected) in enumerate(zip(keys, tensors[CHECKSUM], strict=True)):
                if row_checksum({n: tensors[n][row] for n in COLUMNS}, key) != int(expected):
                    raise damaged(path, f"row {row}, clip {key}, ")
        count += len(keys)
    return count


def save_tensors(tensors: Mapping[str, Tensor], path: Path, **metadata: str) -> None:
    """Write a file with its checksum, whole or not at all."""
    with writing_file(path) as temporary:
        save_file(dict(tensors), temporary, metadata | {CHECKSUM: tensors_checksum(tensors)})
