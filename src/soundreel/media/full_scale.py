"""Limit sound to full scale, and say so where it may be heard."""

import logging
import math
from pathlib import Path

import numpy as np
from jaxtyping import Float32

logger = logging.getLogger(__name__)

AUDIBLE_DB = -40.0
"""Level, against the whole sound, from which the part that clipping takes away is logged."""


def clipped(
    waveform: Float32[np.ndarray, "channel sample"], name: str | Path = "sound"
) -> Float32[np.ndarray, "channel sample"]:
    """Return a copy limited to [-1, 1].

    Args:
        name: of the file or clip, for the log.
    """
    limited = np.clip(waveform, -1, 1)
    lost, whole = (
        float(np.einsum("cs,cs->", x, x, dtype=np.float64)) for x in (waveform - limited, waveform)
    )
    if lost and not lost < whole * 10 ** (AUDIBLE_DB / 10):  # infinite ones, too
        logger.warning(
            "%s: %d of %d samples exceed full scale, clipped; what is lost is %.0f dB of the sound",
            name,
            int((np.abs(waveform) > 1).sum()),
            waveform.size,
            10 * math.log10(lost / whole),
        )
    return limited
