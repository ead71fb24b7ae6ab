"""Captions of the clips of a prepared data set, and their token states, computed once.

FOLDER/captions.json         the captions, and which text encoder read them
FOLDER/states.safetensors    `states`, float16: caption token dim; written last
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from soundreel.data.manifest import DataError, DatasetInfo, load_manifest
from soundreel.files import write_text, writing_file
from soundreel.json_yaml import read_json

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
        for record in load_manifest(root)
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
        DataError: unreadable, another layout, or not one source of the data set is listed.
    """
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
    records = [record for record in load_manifest(root) if record.source in by_source]
    if not records:
        raise DataError(f"{path}: lists no video that {root} was prepared from")
    return {record.key: by_source[record.source] for record in records}


class CaptionStates:
    """Token states of clips, by key; zeros for a clip without a caption.

    Zeros are also what guidance puts in the place of a condition that is dropped: a clip without a
    caption trains the unconditional model.

    Args:
        captions: by key of the clip.
        encode: from captions to states. Every distinct caption is encoded once and kept.
        folder: where they are kept.
        fingerprint: of the text encoder and its settings; states of another one are made anew.
    """

    def __init__(
        self, captions: Mapping[str, str], encode: Encode, folder: Path, *, fingerprint: str
    ) -> None:
        self.distinct = sorted(set(captions.values()))
        self._captions = dict(captions)
        self._row = {caption: row for row, caption in enumerate(self.distinct)}
        about = {"fingerprint": fingerprint, "captions": self.distinct}
        if not _holds(folder, about):
            _write(folder, about, encode, self.distinct)
        self._states = safe_open(folder / "states.safetensors", "pt").get_slice("states")

    def of(self, keys: Sequence[str]) -> Float[Tensor, "clip token dim"]:
        """Return states of these clips' captions, float32, on the CPU."""
        _, num_tokens, dim = self._states.get_shape()
        rows = torch.zeros(len(keys), num_tokens, dim)
        for place, key in enumerate(keys):
            if key in self._captions:
                rows[place] = self._states[self._row[self._captions[key]]].float()
        return rows

    def of_caption(self, caption: str) -> Float[Tensor, "token dim"]:
        """Return states of one of `distinct`, float32, on the CPU."""
        return self._states[self._row[caption]].float()


def _holds(folder: Path, about: Mapping[str, object]) -> bool:
    path = folder / "captions.json"
    is_complete = path.is_file() and (folder / "states.safetensors").is_file()
    return is_complete and read_json(path, DataError) == about


def _write(folder: Path, about: Mapping[str, object], encode: Encode, captions: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    states = folder / "states.safetensors"
    states.unlink(missing_ok=True)  # it says that both files belong together
    write_text(folder / "captions.json", json.dumps(about, indent=2) + "\n")
    parts = [encode(captions[i : i + 32]).half().cpu() for i in range(0, len(captions), 32)]
    with writing_file(states) as temporary:
        save_file({"states": torch.cat(parts)}, temporary)
