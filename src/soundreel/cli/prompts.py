"""Captions that a model is asked for while it is evaluated: those of the real clips, or a list."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from soundreel.data.captions import read_captions
from soundreel.data.manifest import CAPTIONS_FILE, load_manifest
from soundreel.errors import SoundreelError


def find_prompts(listed: Path | None, real: Path, split: str, seed: int) -> tuple[str, ...]:
    """Return captions in the order in which a model's samples are made from them.

    Args:
        listed: a file of captions, in its own order: a CSV with a column `caption`, or plain text
            with one a line. None takes those of the real clips, one for each clip that has one,
            shuffled by the seed.
        real: the real clips; only a prepared data set has captions.
        split: of the data set; "" takes all.

    Raises:
        SoundreelError: the file cannot be read, or holds no caption.
    """
    if listed is not None:
        return _read(listed)
    captions = real / CAPTIONS_FILE
    if not captions.is_file():
        return ()
    by_key = read_captions(captions, real)
    found = [by_key[clip.key] for clip in load_manifest(real, split) if clip.key in by_key]
    order = np.random.default_rng(seed).permutation(len(found))
    return tuple(found[index] for index in order.tolist())


def _read(path: Path) -> tuple[str, ...]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines: Sequence[str] = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SoundreelError(f"{path}: cannot be read as captions ({error})") from None
    if path.suffix.lower() == ".csv":
        rows = csv.DictReader(lines)
        if "caption" not in (rows.fieldnames or ()):
            raise SoundreelError(f"{path}: a CSV of captions needs a column caption")
        lines = [row["caption"] or "" for row in rows]
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise SoundreelError(f"{path}: holds no caption")
    return prompts
