"""The records of one split, read from the manifest one by one: memory does not grow with them.

The index beside the manifest says where each line begins, how long it is and how many frames its
clip has. It is read in blocks, of which sums alone are kept. Data sets of older releases have no
index; theirs is made in memory, from all lines.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from soundreel.data.manifest import (
    DATASET_FILE,
    INDEX_FILE,
    INDEX_ROW,
    MANIFEST_FILE,
    ClipRecord,
    DataError,
    DatasetInfo,
    check_list,
    index_row,
    manifest_lines,
    parse_record,
    split_code,
)
from soundreel.files import checksum
from soundreel.json_yaml import parse_json

BLOCK = 4096
"""Rows of the index that are read at once."""


class _StoredIndex:
    """The rows of an index file, read where they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = path.stat().st_size // INDEX_ROW.itemsize

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self._count)
        return np.fromfile(
            self._path, INDEX_ROW, count=last - first, offset=first * INDEX_ROW.itemsize
        )


def _index(root: Path) -> "_StoredIndex | np.ndarray":
    """Return the index of a manifest, or make it where an older release has written none."""
    if (root / DATASET_FILE).is_file() and INDEX_FILE in DatasetInfo.load(root).checksums:
        check_list(root, INDEX_FILE)
        return _StoredIndex(root / INDEX_FILE)
    rows = [index_row(line, offset, record) for line, offset, record in manifest_lines(root)]
    return np.array(rows, INDEX_ROW)


class Records(Sequence[ClipRecord]):
    """The clips of a split that hold at least one item, in the order of the manifest.

    Items, such as windows, are numbered through all clips.

    Args:
        split: "" takes the clips of all.
        num_items: of a clip with so many frames.

    Raises:
        DataError: here or when a record is read: the manifest or its index is missing or damaged.
    """

    def __init__(self, root: Path, split: str, num_items: Callable[[int], int]) -> None:
        self._path = root / MANIFEST_FILE
        self._code = split_code(split) if split else None
        self._num_items = num_items
        self._index = _index(root)
        self.longest = 0
        clips, items = [0], [0]
        for number in range(-(-len(self._index) // BLOCK)):
            frames, found = self._counted(number)
            self.longest = max(self.longest, int(frames.max(initial=0)))
            clips.append(clips[-1] + int((found > 0).sum()))
            items.append(items[-1] + int(found.sum()))
        self._clip_ends, self._item_ends = clips, items
        self._block: tuple[int, np.ndarray, np.ndarray] = (-1, np.empty(0), np.empty(0))

    @property
    def num_items(self) -> int:
        """Return how many items all clips hold."""
        return self._item_ends[-1]

    def __len__(self) -> int:
        return self._clip_ends[-1]

    @overload
    def __getitem__(self, index: int) -> ClipRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[ClipRecord]: ...

    def __getitem__(self, index: int | slice) -> ClipRecord | list[ClipRecord]:
        """Return a record, read anew from the manifest."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._clip_ends, index) - 1
        places, _ = self._of_block(number)
        return self._read(int(places[index - self._clip_ends[number]]))

    def __iter__(self) -> Iterator[ClipRecord]:
        return (self[index] for index in range(len(self)))

    def locate(self, item: int) -> tuple[int, int]:
        """Return the number of the clip that holds an item, and which of the clip's items it is."""
        number = bisect_right(self._item_ends, item) - 1
        _, ends = self._of_block(number)
        within = item - self._item_ends[number]
        clip = int(np.searchsorted(ends, within, side="right"))
        before = int(ends[clip - 1]) if clip else 0
        return self._clip_ends[number] + clip, within - before

    def _of_block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the lines of a block's clips, and where the items of each end."""
        if self._block[0] != number:
            _, found = self._counted(number)
            (places,) = found.nonzero()
            self._block = (number, places + number * BLOCK, found[places].cumsum())
        return self._block[1:]

    def _counted(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return frames and items of each row of a block; none of clips of other splits."""
        rows = self._index[number * BLOCK : (number + 1) * BLOCK]
        is_wanted = np.ones(len(rows), bool) if self._code is None else rows["split"] == self._code
        frames = np.where(is_wanted, rows["num_frames"], 0)
        lengths, inverse = np.unique(frames, return_inverse=True)
        counts = np.array([self._num_items(int(length)) for length in lengths], np.int64)[inverse]
        return frames, np.where(is_wanted, counts, 0)

    def _read(self, place: int) -> ClipRecord:
        """Return the record of a line, which is compared with its checksum."""
        (row,) = self._index[place : place + 1]
        with self._path.open("rb") as file:
            file.seek(int(row["offset"]))
            line = file.read(int(row["num_bytes"]))
        where = f"{self._path}, line {place + 1}"
        if checksum(line) != row["checksum"]:
            raise DataError(f"{where}: damaged since it was written; copy the data set again")
        return parse_record(parse_json(line, where, DataError), where)
