"""Many rendered clips as arrays in memory, for a machine that renders its own training set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from soundreel.data.scenes.render import RenderOptions, render_clips


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneArrays:
    """Clips along the first axis.

    Attributes:
        video: uint8 `clip frame height width 3`.
        audio: float32 `clip 1 sample`.
        label: int64 `clip`, numbers of the kinds in the order of `KINDS`.
    """

    video: npt.NDArray[np.uint8]
    audio: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]


def render_arrays(
    options: RenderOptions, seed: int, indices: Sequence[int], num_workers: int = 0
) -> SceneArrays:
    """Render the clips numbered `indices` of a series, with so many processes (0: in this one)."""
    count = len(indices)
    shape = (count, options.num_frames, options.height, options.width, 3)
    arrays = SceneArrays(
        video=np.empty(shape, np.uint8),
        audio=np.empty((count, 1, options.num_samples), np.float32),
        label=np.empty(count, np.int64),
    )
    for k, clip in enumerate(render_clips(options, seed, indices, num_workers)):
        arrays.video[k], arrays.audio[k] = clip.frames, clip.waveform
        arrays.label[k] = clip.label
    return arrays
