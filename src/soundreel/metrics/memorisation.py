"""Whether generated clips are copies: their nearest training clips, in picture and in sound.

Distances are taken between small descriptions (thumbnails over time, log-mel pictures), so that a
re-encoded or slightly shifted copy is found. What is near is judged against real clips: how far is
a real clip from the nearest *other* real one?
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from soundreel.clip import Clip

THUMBNAIL = 16
NUM_TIMES = 8
NUM_BANDS = 24
NUM_COLUMNS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """The real clip nearest to one generated clip.

    Attributes:
        generated, real: names.
        distance: between their descriptions, as a multiple of the median distance of a real clip
            to its nearest other real one: 1 is ordinary, 0 is a copy.
    """

    generated: str
    real: str
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Memorisation:
    """Nearest neighbours of all generated clips in one modality.

    Attributes:
        neighbours: one a generated clip, nearest first.
        median_distance: of those; well below 1 means clips are nearer to the training set than
            real clips are to each other.
        share_suspicious: share nearer than all but 1 % of the real clips are to each other.
    """

    neighbours: tuple[Neighbour, ...]
    median_distance: float
    share_suspicious: float


def describe_picture(clip: Clip) -> Float[Tensor, " dim"]:
    """Thumbnails of 16 by 16 grey pixels at 8 times, as one vector in [-1, 1]."""
    if clip.frames is None:
        raise ValueError("a clip without pictures cannot be described by them")
    index = np.linspace(0, clip.num_frames - 1, NUM_TIMES).round().astype(int)
    frames = torch.from_numpy(clip.frames[index]).float().mean(dim=3)[:, None]
    small = functional.interpolate(
        frames, size=(THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True
    )
    return (small / 127.5 - 1).flatten()


def describe_sound(clip: Clip) -> Float[Tensor, " dim"]:
    """Log power of 24 bands at 32 times as one vector, in units of 20 dB."""
    if clip.waveform is None:
        raise ValueError("a clip without sound cannot be described by it")
    mono = torch.from_numpy(clip.waveform.mean(axis=0))
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


def find_copies(
    real: Float[Tensor, "real dim"],
    real_names: list[str],
    generated: Float[Tensor, "generated dim"],
    generated_names: list[str],
) -> Memorisation:
    """Nearest real clip of every generated one, against the distances within the real set.

    Raises:
        ValueError: fewer than three real clips.
    """
    if len(real) < 3:
        raise ValueError(f"memorisation needs at least 3 real clips, got {len(real)}")
    within = torch.cdist(real.double(), real.double()).fill_diagonal_(float("inf"))
    ordinary = within.min(dim=1).values
    unit = max(float(ordinary.median()), 1e-9)
    distance, index = torch.cdist(generated.double(), real.double()).min(dim=1)
    neighbours = [
        Neighbour(generated=name, real=real_names[int(k)], distance=float(d) / unit)
        for name, k, d in zip(generated_names, index, distance, strict=True)
    ]
    return Memorisation(
        neighbours=tuple(sorted(neighbours, key=lambda n: (n.distance, n.generated))),
        median_distance=float(distance.median()) / unit,
        share_suspicious=float((distance < torch.quantile(ordinary, 0.01)).double().mean()),
    )
