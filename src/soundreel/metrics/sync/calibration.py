"""Tools to find out what a sync metric is worth: known shifts, and how well they are told apart."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.metrics.sync.signals import Frames, Waveform
from soundreel.types import Number

Values = Sequence[Number] | np.ndarray


def cut_pair(
    frames: Frames,
    waveform: Waveform,
    frame_rate: Fraction,
    sample_rate: int,
    duration_s: Number,
    shift_s: Number,
) -> tuple[UInt8[np.ndarray, "_frame height width 3"], Float32[np.ndarray, "channel _sample"]]:
    """Cut the first `duration_s` of the picture with the sound from `shift_s` on.

    Both pieces are real content throughout: no silence is put in, which a metric might notice.

    Raises:
        ValueError: a negative shift, or a clip too short for it.
    """
    num_frames = round(duration_s * frame_rate)
    start = round(shift_s * sample_rate)
    num_samples = round(num_frames * sample_rate / frame_rate)
    if shift_s < 0 or num_frames > len(frames) or start + num_samples > waveform.shape[1]:
        raise ValueError(
            f"a clip of {waveform.shape[1] / sample_rate:.2f} s has no {duration_s} s of sound "
            f"from {shift_s} s on"
        )
    return frames[:num_frames], waveform[:, start : start + num_samples]


def auroc(
    positive: Sequence[Number] | np.ndarray, negative: Sequence[Number] | np.ndarray
) -> float:
    """Compute the probability that a positive example scores above a negative one; ties count half.

    Raises:
        ValueError: no examples on one side.
    """
    p, n = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if not len(p) or not len(n):
        raise ValueError("AUROC needs examples of both kinds")
    above = (p[:, None] > n[None]).mean()
    return float(above + 0.5 * (p[:, None] == n[None]).mean())


def auroc_interval(
    positive: Values,
    negative: Values,
    rng: np.random.Generator,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the AUROC; pairs of one clip are drawn together.

    Raises:
        ValueError: the two sides are not of one length.
    """
    p, n = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    if len(p) != len(n):
        raise ValueError(f"pairs of one clip are drawn together, got {len(p)} and {len(n)}")
    draws = []
    for _ in range(num_resamples):
        index = rng.integers(len(p), size=len(p))
        draws.append(auroc(p[index], n[index]))
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
