"""Files of a latent cache, which tell whether they are damaged: as a whole, and row by row."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from soundreel.checkpoints.component import reading_tensors
from soundreel.data.dataset import Sample
from soundreel.data.manifest import DataError
from soundreel.errors import SoundreelError
from soundreel.files import checksum, writing_file
from soundreel.types import AV, LatentSpec

COLUMNS = ("video", "audio", "label", "start_frame")
CHECKSUM = "checksum"


class LatentShard:
    """Reads rows of a shard, each compared with its checksum (older caches have none).

    Raises:
        DataError: missing, damaged, or of another size than the cache says.
    """

    def __init__(self, path: Path, latents: LatentSpec, rows: int) -> None:
        self._path = path
        with reading(path):
            self._file = safe_open(path, "pt")
            self._keys = json.loads(self._file.metadata()["keys"])
            names = set(self._file.keys())
            found = {
                name: (part.get_dtype(), *part.get_shape())
                for name, part in ((name, self._file.get_slice(name)) for name in names)
            }
        self._has_checksums = CHECKSUM in self._file.metadata()
        expected = {
            "video": ("F32", rows, *latents.video_shape),
            "audio": ("F32", rows, *latents.audio_shape),
            "label": ("I64", rows),
            "start_frame": ("I64", rows),
        }
        if self._has_checksums:
            expected[CHECKSUM] = ("I64", rows)
        is_list = isinstance(self._keys, list) and all(isinstance(key, str) for key in self._keys)
        if found != expected or not is_list or len(self._keys) != rows:
            raise damaged(path)

    def row(self, row: int) -> Sample:
        """Return the latents of one row as they are."""
        with reading(self._path):
            columns = {name: self._file.get_slice(name)[row] for name in COLUMNS}
            if self._has_checksums:
                expected = int(self._file.get_slice(CHECKSUM)[row])
                if row_checksum(columns, self._keys[row]) != expected:
                    raise damaged(self._path, f"row {row}, clip {self._keys[row]}, ")
        return Sample(
            av=AV(columns["video"], columns["audio"]),
            label=int(columns["label"]),
            key=self._keys[row],
            start_frame=int(columns["start_frame"]),
        )

    def places(self) -> list[tuple[str, int]]:
        """Return key and start frame of every row; no latent is read."""
        with reading(self._path):
            starts = self._file.get_tensor("start_frame").tolist()
        return list(zip(self._keys, starts, strict=True))


def row_checksum(columns: Mapping[str, Tensor], key: str) -> int:
    """Return the CRC-32 of one window: its columns and its key."""
    return checksum(*(_bytes(columns[name]) for name in COLUMNS), key.encode())


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().numpy().reshape(-1).view("uint8").data


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of tensors, their names, types and shapes."""
    value = 0
    for name in sorted(tensors):
        about = f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}"
        value = checksum(about.encode(), _bytes(tensors[name]), start=value)
    return f"{value:08x}"


def damaged(path: Path, what: str = "") -> DataError:
    """Return the error that names a damaged file of a cache."""
    return DataError(
        f"{path}: {what}damaged since it was written; remove {path.parent} to cache the latents "
        "again"
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
        raise DataError(f"{error}; remove {path.parent} to cache the latents again") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file and compare them with their checksum, if there is one.

    Raises:
        DataError: missing or damaged.
    """
    with reading(path), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    if metadata.get(CHECKSUM, "") not in ("", _checksum(tensors)):
        raise damaged(path)
    return tensors


def save_tensors(tensors: Mapping[str, Tensor], path: Path, **metadata: str) -> None:
    """Write a file with its checksum, whole or not at all."""
    with writing_file(path) as temporary:
        save_file(dict(tensors), temporary, metadata | {CHECKSUM: _checksum(tensors)})
