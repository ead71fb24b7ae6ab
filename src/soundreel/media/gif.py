"""Animated GIF: pictures without sound that play everywhere."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from soundreel.files import writing_file


def write_gif(
    path: Path, frames: UInt8[np.ndarray, "frame height width 3"], frame_rate: Fraction
) -> None:
    """Write frames as an animated GIF that repeats.

    A GIF counts in hundredths of a second: a frame is shown until the hundredth that is nearest to
    its end, so that the whole has the right length.

    Raises:
        FileError: it cannot be written.
    """
    ends = [round(100 * (k + 1) / frame_rate) for k in range(len(frames))]
    shown_ms = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    first, *rest = (Image.fromarray(frame) for frame in frames)
    with writing_file(path) as temporary:
        first.save(
            temporary, format="GIF", save_all=True, append_images=rest, duration=shown_ms, loop=0
        )
