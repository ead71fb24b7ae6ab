"""Sources that show the same thing under several names, so that no split holds what another does.

Equal files are found by size and SHA-256. Near copies (encoded anew, scaled, tagged otherwise) are
found by a perceptual hash: whether each of 16 by 16 fields of a small picture is brighter than the
one to its left, at eight times spread over the video. A playlist of HTTP Live Streaming is one
source with the segments it names.
"""

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from soundreel.data.journal import size_of
from soundreel.data.pool import worker_pool
from soundreel.data.scan import Source
from soundreel.errors import SoundreelError
from soundreel.media.decode import read_frames
from soundreel.media.errors import printable
from soundreel.media.framing import Framing
from soundreel.media.probe import probe

log = logging.getLogger(__name__)

NUM_TIMES = 8
SIDE = 16
MIN_SPREAD = 4.0  # grey levels: a picture that is evenly dark or bright has no hash
MAX_PLAYLIST_BYTES = 1 << 20
LENGTH_TOLERANCE_S = 0.5

Hash = Bool[np.ndarray, "time bit"]


def group_copies(
    sources: Sequence[Source],
    known: Mapping[str, str],
    near_copies: float,
    num_workers: int,
) -> list[Source]:
    """Return the sources with one group for those that are copies of each other, and say so.

    Args:
        known: groups of sources that were prepared before, by name; they keep theirs, and copies
            that were added take it.
        near_copies: largest share of the bits of two perceptual hashes that may differ; 0 looks for
            equal files only.
        num_workers: processes that decode; 0 decodes in this one.
    """
    sources = [replace(s, group=known.get(s.name, s.group)) for s in sources]
    groups: dict[str, list[str]] = defaultdict(list)  # of each file
    for source in sources:
        if not source.problem:
            groups[source.file].append(source.group)
    files = sorted(groups)
    found = {
        "a copy of": _equal_files(files),
        "part of the playlist": _playlists(files),
        "nearly a copy of": _near_copies(files, near_copies, num_workers) if near_copies else [],
    }
    union = _Union()
    for words, pairs in found.items():
        pairs = [(one, other) for one, other in pairs if set(groups[one]) != set(groups[other])]
        for one, other in pairs:
            union.join({*groups[one], *groups[other]})
        if pairs:
            log.warning(
                "%d files stay in one split with another; the first: %s is %s %s",
                len(pairs),
                printable(pairs[0][1]),
                words,
                printable(pairs[0][0]),
            )
    names = union.names(set(known.values()))
    return [replace(source, group=names.get(source.group, source.group)) for source in sources]


class _Union:
    """Sets of groups that belong together."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, groups: set[str]) -> None:
        roots = sorted({self._root(group) for group in groups})
        self._parent |= dict.fromkeys(roots, roots[0])

    def _root(self, name: str) -> str:
        self._parent.setdefault(name, name)
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def names(self, known: set[str]) -> dict[str, str]:
        """Return the new name of every joined group: the first known one, or the first.

        Groups known from earlier stay as they are: their clips have their splits.
        """
        members: dict[str, list[str]] = defaultdict(list)
        for name in self._parent:
            members[self._root(name)].append(name)
        chosen = {}
        for root, names in members.items():
            before = sorted(known.intersection(names))
            if len(before) > 1:
                log.warning(
                    "%s were prepared before as different sources; --overwrite joins them",
                    " and ".join(before[:2]),
                )
            chosen |= {name: before[0] if before else root for name in names if name not in known}
        return chosen


def _equal_files(files: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of files with equal content; only files of equal size are read."""
    sizes = sorted((size, file) for file in files if (size := size_of(Path(file))) >= 0)
    pairs = []
    for _, of_size in groupby(sizes, key=itemgetter(0)):
        alike = [file for _, file in of_size]
        by_hash: dict[str, list[str]] = defaultdict(list)
        for file in alike if len(alike) > 1 else ():
            try:
                with Path(file).open("rb") as content:
                    by_hash[hashlib.file_digest(content, "sha256").hexdigest()].append(file)
            except OSError:
                continue
        pairs += [(equal[0], copy) for equal in by_hash.values() for copy in equal[1:]]
    return pairs


def _playlists(files: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of a playlist and a file it names that is a source as well."""
    playlists = [Path(file) for file in files if file.lower().endswith((".m3u8", ".m3u"))]
    by_place = {Path(file).resolve(): file for file in files} if playlists else {}
    pairs = []
    for path in playlists:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(MAX_PLAYLIST_BYTES)
        except OSError:
            continue
        named = [line.strip() for line in text.splitlines() if not line.startswith("#")]
        named += re.findall(r'URI="([^"]+)"', text)
        for name in filter(None, named):
            try:
                part = by_place.get((path.parent / name).resolve())
            except (OSError, ValueError):
                continue
            if part is not None and part != str(path):
                pairs.append((str(path), part))
    return pairs


def _near_copies(files: Sequence[str], max_share: float, num_workers: int) -> list[tuple[str, str]]:
    """Return pairs of videos of equal length whose hashes differ in few bits."""
    hashes = perceptual_hashes([Path(file) for file in files], num_workers)
    found = sorted((length_s, str(path)) for path, (length_s, _) in hashes.items())
    pairs = []
    for index, (length_s, name) in enumerate(found):
        own = hashes[Path(name)][1]
        for other_s, other_name in found[index + 1 :]:
            if other_s - length_s > LENGTH_TOLERANCE_S:
                break
            if float((own != hashes[Path(other_name)][1]).mean()) <= max_share:
                pairs.append((min(name, other_name), max(name, other_name)))
    return sorted(pairs)


def perceptual_hashes(paths: Sequence[Path], num_workers: int) -> dict[Path, tuple[float, Hash]]:
    """Return the length in seconds and the hash of each video; what has none is left out.

    A file that crashes the decoder crashes a worker process, and has no hash.
    """
    found: dict[Path, tuple[float, Hash] | None] = {}
    if num_workers == 0:
        found = {path: _perceptual_hash(path) for path in paths}
    waiting = [path for path in paths if path not in found]
    size = num_workers
    while waiting:
        # After a crash, each video of those left gets a process of its own until one crashes again.
        batch = waiting if size > 1 else waiting[:1]
        with worker_pool(size) as pool:
            futures = [(path, pool.submit(_perceptual_hash, path)) for path in batch]
            for path, future in futures:
                try:
                    found[path] = future.result()
                except BrokenProcessPool:
                    if size == 1:
                        found[path] = None
        waiting = [path for path in waiting if path not in found]
        size = 1
    return {path: one for path, one in found.items() if one is not None}


def _perceptual_hash(path: Path) -> tuple[float, Hash] | None:
    """Return length and hash, or None for what cannot be read, is short of pictures or even."""
    try:
        info = probe(path)
        if not info.has_video or not info.duration:
            return None
        framing = Framing(
            kind="box",
            height=SIDE,
            width=SIDE + 1,
            box=(0, 0, info.width, info.height),
        )
        pictures = []
        for k in range(NUM_TIMES):
            at = info.duration * (2 * k + 1) / (2 * NUM_TIMES)
            shown = read_frames(path, frame_rate=1, start=at, num_frames=1, framing=framing)
            pictures.append(next(shown).mean(axis=2))
    except (SoundreelError, OSError):
        return None
    grey = np.stack(pictures)
    if np.median(grey.std(axis=(1, 2))) < MIN_SPREAD:
        return None
    return float(info.duration), (grey[:, :, 1:] > grey[:, :, :-1]).reshape(NUM_TIMES, -1)
