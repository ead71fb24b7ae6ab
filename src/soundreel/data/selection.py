"""Choose among the sources that were found: a seeded subset, and the best of those."""

import csv
import hashlib
import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from soundreel.data.options import PrepareOptions
from soundreel.data.scan import Source
from soundreel.files import write_text
from soundreel.media.errors import MediaError
from soundreel.media.probe import probe

CHOSEN_FILE = "chosen.csv"

Quality = tuple[Fraction, int]
"""Frames per second, then pixels of the picture."""


def select(sources: list[Source], options: PrepareOptions, root: Path) -> list[Source]:
    """Return the sources that the options `subset` and `best` leave, in the order given.

    With `best`, `root/chosen.csv` lists what was chosen, the best first: source, frame rate, width
    and height.
    """
    if options.subset:
        groups = subset_of({source.group for source in sources}, options.subset, options.seed)
        sources = [source for source in sources if source.group in groups]
    if options.best:
        found = {source.name: _measure(source) for source in sources}
        names = best_of({n: (rate, w * h) for n, (rate, w, h) in found.items()}, options.best)
        _write_chosen(root / CHOSEN_FILE, [(name, *found[name]) for name in names])
        sources = [source for source in sources if source.name in set(names)]
    return sources


def subset_of(groups: Iterable[str], subset: str, seed: int) -> set[str]:
    """Return the groups whose SHA-256 of "SEED:GROUP" comes first, so that any order gives them.

    Args:
        subset: a percentage such as "10%", rounded to whole groups, or a number of groups.
    """
    ranked = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    if subset.endswith("%"):
        return set(ranked[: round(Fraction(subset[:-1]) * len(ranked) / 100)])
    return set(ranked[: int(subset)])


def best_of(quality: dict[str, Quality], count: int) -> list[str]:
    """Return up to `count` names by falling frame rate, then picture size, then by name.

    Source:
        Ruan et al. 2023, supplement, section 3.1 (20,000 clips by frame rate and size).
    """
    return sorted(quality, key=lambda name: (-quality[name][0], -quality[name][1], name))[:count]


def _measure(source: Source) -> tuple[Fraction, int, int]:
    """Return frame rate, width and height; zeros of what cannot be read, which comes last."""
    try:
        media = probe(source.path)
    except (MediaError, OSError):
        return Fraction(0), 0, 0
    return media.frame_rate or Fraction(0), media.width, media.height


def _write_chosen(path: Path, rows: list[tuple[str, Fraction, int, int]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["source", "frame_rate", "width", "height"])
    writer.writerows(rows)
    write_text(path, table.getvalue())
