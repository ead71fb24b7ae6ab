"""Tell whether generated clips are copies: their nearest known clips, in picture and in sound.

Distances are taken between small descriptions (thumbnails over time, log-mel pictures), so that a
re-encoded or slightly shifted copy is found. What is near is judged by real clips that nobody
generated: how far are they from the known clips?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional

from soundreel.errors import SoundreelError

THUMBNAIL = 16
NUM_TIMES = 8
NUM_BANDS = 24
NUM_COLUMNS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """The known clip nearest to one generated clip.

    Attributes:
        generated, known: names.
        start_s: where in the known clip the stretch begins that is so near.
        distance: between their descriptions, as a multiple of the median distance of a real clip
            to its nearest known one: 1 is ordinary, 0 is a copy.
    """

    generated: str
    known: str
    start_s: float
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Memorisation:
    """Nearest neighbours of all generated clips in one modality.

    Attributes:
        neighbours: one a generated clip, nearest first.
        median_distance: of those; well below 1 means that generated clips are nearer to the known
            clips than real clips are.
        share_suspicious: share nearer than all but 1 % of the real clips.
    """

    neighbours: tuple[Neighbour, ...]
    median_distance: float
    share_suspicious: float


def thumbnails(
    frames: UInt8[np.ndarray, "frame _height _width 3"],
) -> Float[Tensor, "frame 16 16"]:
    """Reduce pictures to 16 by 16 grey pixels, 0 to 255."""
    grey = torch.from_numpy(frames).sum(dim=3, dtype=torch.int16).float()[:, None] / 3
    size = (THUMBNAIL, THUMBNAIL)
    return functional.interpolate(grey, size=size, mode="bilinear", antialias=True)[:, 0]


def describe_picture(small: Float[np.ndarray, "frame 16 16"]) -> Float[Tensor, " dim"]:
    """Describe a clip by its thumbnails at 8 times, as one vector in [-1, 1]."""
    index = np.linspace(0, len(small) - 1, NUM_TIMES).round().astype(int)
    return (torch.from_numpy(small[index]) / 127.5 - 1).flatten()


def describe_sound(waveform: Float32[np.ndarray, "channel sample"]) -> Float[Tensor, " dim"]:
    """Describe sound by the log power of 24 bands at 32 times, one vector in units of 20 dB."""
    mono = torch.from_numpy(waveform.mean(axis=0))
    size = 1024
    padded = functional.pad(mono, (0, max(0, size - len(mono))))
    spectrum = torch.stft(
        padded, size, hop_length=256, window=torch.hann_window(size), return_complex=True
    )
    power = spectrum.abs().square()
    edges = torch.logspace(0.3, np.log10(power.shape[0]), NUM_BANDS + 1).long().tolist()
    bands = torch.stack([power[a : max(a + 1, b)].mean(dim=0) for a, b in pairwise(edges)])
    level = (bands + 1e-6).log10() / 2
    return functional.adaptive_avg_pool1d(level[None], NUM_COLUMNS)[0].flatten()


class NearestSearch:
    """The nearest known clip of each query, found while the known clips pass one by one.

    Args:
        queries: descriptions.
    """

    def __init__(self, queries: Float[Tensor, "query dim"]) -> None:
        self._queries = queries
        self.distance = torch.full((len(queries),), torch.inf, dtype=queries.dtype)
        self.found: list[tuple[str, float]] = [("", 0.0)] * len(queries)

    def see(
        self,
        name: str,
        starts_s: Sequence[float],
        stretches: Float[Tensor, "stretch dim"],
        own: int | None = None,
    ) -> None:
        """Compare one known clip, or several stretches of it, with all queries.

        Args:
            starts_s: where in the clip each stretch begins.
            own: the query that is this very clip, and for which it does not count.
        """
        # The product form of the distance would not give 0 for equal rows.
        mode = "donot_use_mm_for_euclid_dist"
        nearest = torch.cdist(self._queries, stretches, compute_mode=mode).min(dim=1)
        nearer = nearest.values < self.distance
        if own is not None:
            nearer[own] = False
        self.distance = torch.where(nearer, nearest.values, self.distance)
        for query in nearer.nonzero()[:, 0].tolist():
            self.found[query] = (name, starts_s[int(nearest.indices[query])])


def judge_copies(
    search: NearestSearch, num_real: int, generated_names: Sequence[str]
) -> Memorisation:
    """Judge generated clips by a finished search.

    Args:
        search: its queries are `num_real` real clips, then the generated ones.

    Raises:
        SoundreelError: fewer than three real clips, or real clips that are the known ones.
    """
    if num_real < 3:
        raise SoundreelError(f"memorisation needs at least 3 real clips, got {num_real}")
    ordinary, distance = search.distance[:num_real].double(), search.distance[num_real:].double()
    unit = float(ordinary.median())
    if unit < 1e-6:
        raise SoundreelError(
            "most real clips are among the clips that copies are looked for in (or are copies of "
            "one another), so that nothing says what distance is ordinary: give held-out clips "
            "as REF"
        )
    neighbours = [
        Neighbour(generated=name, known=known, start_s=start_s, distance=float(d) / unit)
        for name, (known, start_s), d in zip(
            generated_names, search.found[num_real:], distance, strict=True
        )
    ]
    return Memorisation(
        neighbours=tuple(sorted(neighbours, key=lambda n: (n.distance, n.generated))),
        median_distance=float(distance.median()) / unit,
        share_suspicious=float((distance < torch.quantile(ordinary, 0.01)).double().mean()),
    )
