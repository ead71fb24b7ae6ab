"""Captions of the clips of a prepared data set, and their token states, computed once.

FOLDER/captions.json         hash of the captions, and which text encoder read them
FOLDER/states.safetensors    `states`, float16: caption token dim; a CRC-32 of each; written last
"""

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from soundreel.data.latent_files import CHECKSUM, damaged, reading, tensor_checksum
from soundreel.data.manifest import DataError, DatasetInfo, check_list, iter_manifest
from soundreel.files import writing_file
from soundreel.json_yaml import read_checked_json, write_checked_json

ABOUT_FILE, STATES_FILE = "captions.json", "states.safetensors"
Encode = Callable[[Sequence[str]], Float[Tensor, "caption token dim"]]


def class_captions(root: Path) -> dict[str, str]:
    """Return the class name of every clip that has one, by the clip's key; underscores become
    spaces.

    Raises:
        DataError: no clip of the data set has a class.
    """
    classes = DatasetInfo.load(root).classes
    captions = {
        record.key: classes[record.label].replace("_", " ")
        for record in iter_manifest(root)
        if record.label >= 0
    }
    if not captions:
        raise DataError(
            f"{root}: its clips have no classes to serve as captions; prepare it with --labels, "
            "or give a CSV list of captions"
        )
    return captions


def read_captions(path: Path, root: Path) -> dict[str, str]:
    """Return captions of a CSV file with the columns `source` and `caption`, by the key of the
    clip.

    Args:
        path: `source` is the video a clip was cut from, as the manifest names it.
        root: of the prepared data set. Clips whose source is not listed have no caption.

    Raises:
        DataError: unreadable, another layout, not one source of the data set is listed, or it is
            the data set's own list and has changed since it was written.
    """
    if path.resolve().parent == root.resolve():
        check_list(root, path.name)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    by_source = {}
    for number, row in enumerate(rows, 2):
        source, caption = row.get("source"), row.get("caption")
        if not source or not caption or not caption.strip():
            raise DataError(f"{path}, line {number}: needs the columns source and caption, filled")
        by_source[source] = caption.strip()
    captions = {r.key: by_source[r.source] for r in iter_manifest(root) if r.source in by_source}
    if not captions:
        raise DataError(f"{path}: lists no video that {root} was prepared from")
    return captions


class CaptionStates:
    """Token states of clips, by key; zeros for a clip without a caption.

    Zeros are also what guidance puts in the place of a condition that is dropped: a clip without a
    caption trains the unconditional model.

    Args:
        captions: by key of the clip.
        encode: from captions to states. Every distinct caption is encoded once and kept.
        folder: where they are kept.
        fingerprint: of the text encoder and its settings; states of another one are made anew.

    Raises:
        DataError: here or when they are read, what is kept is damaged.
    """

    def __init__(
        self, captions: Mapping[str, str], encode: Encode, folder: Path, *, fingerprint: str
    ) -> None:
        self.distinct = sorted(set(captions.values()))
        self._captions = dict(captions)
        self._row = {caption: row for row, caption in enumerate(self.distinct)}
        digest = hashlib.sha256(json.dumps(self.distinct).encode()).hexdigest()
        about = {"fingerprint": fingerprint, "captions": digest}
        if not _holds(folder, about):
            _write(folder, about, encode, self.distinct)
        self._states = _StoredStates(folder / STATES_FILE)

    def of(self, keys: Sequence[str]) -> Float[Tensor, "clip token dim"]:
        """Return states of these clips' captions, float32, on the CPU."""
        rows = torch.zeros(len(keys), *self._states.shape)
        for place, key in enumerate(keys):
            if key in self._captions:
                rows[place] = self.of_caption(self._captions[key])
        return rows

    def of_caption(self, caption: str) -> Float[Tensor, "token dim"]:
        """Return states of one of `distinct`, float32, on the CPU."""
        return self._states[self._row[caption]].float()


def verify_states(folder: Path) -> int:
    """Compare all token states that `CaptionStates` keeps in a folder with their checksums.

    Returns:
        Number of captions.

    Raises:
        DataError: they are damaged.
    """
    read_checked_json(folder / ABOUT_FILE, DataError)
    states = _StoredStates(folder / STATES_FILE)
    for row in range(len(states)):
        states[row]
    return len(states)


class _StoredStates:
    """The rows of `states.safetensors`, each compared with its checksum if it has one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with reading(path):
            self._file = safe_open(path, "pt")
            names = set(self._file.keys())
            self._states = self._file.get_slice("states")
            self._count, *self.shape = self._states.get_shape()
            self._has_checksums = CHECKSUM in names
            if len(names) != 1 + self._has_checksums or self._states.get_dtype() != "F16":
                raise damaged(path)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Float[Tensor, "token dim"]:
        with reading(self._path):
            states = self._states[row]
            if self._has_checksums and tensor_checksum(states) != int(
                self._file.get_slice(CHECKSUM)[row]
            ):
                raise damaged(self._path, f"caption {row} ")
        return states


def _holds(folder: Path, about: Mapping[str, object]) -> bool:
    path = folder / ABOUT_FILE
    is_complete = path.is_file() and (folder / STATES_FILE).is_file()
    return is_complete and read_checked_json(path, DataError) == about


def _write(folder: Path, about: Mapping[str, object], encode: Encode, captions: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    states = folder / STATES_FILE
    states.unlink(missing_ok=True)  # it says that both files belong together
    write_checked_json(folder / ABOUT_FILE, dict(about))
    parts = [encode(captions[i : i + 32]).half().cpu() for i in range(0, len(captions), 32)]
    with writing_file(states) as temporary:
        rows = torch.cat(parts)
        checksums = torch.tensor([tensor_checksum(row) for row in rows])
        save_file({"states": rows, CHECKSUM: checksums}, temporary)
