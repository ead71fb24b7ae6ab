"""Where one shot ends and another begins, by PySceneDetect (extra `data`)."""

import importlib
import importlib.util
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import UInt8

from soundreel.data.manifest import DataError


def require_scene_detection() -> None:
    """Raises: DataError, with the way to install it, if PySceneDetect is absent."""
    if importlib.util.find_spec("scenedetect") is None:
        raise DataError(
            "scene_cuts split needs PySceneDetect, which is not installed: "
            "pip install 'soundreel[data]', or use scene_cuts keep"
        )


class CutDetector:
    """Tells for each frame, given in order, whether a new shot begins with it.

    The measure is PySceneDetect's content detector: mean absolute change of hue, saturation and
    brightness against the frame before, each 0 to 255. It sees the prepared frames, at the prepared
    rate. Fades are not found.
    """

    def __init__(self, threshold: float, frame_rate: Fraction) -> None:
        require_scene_detection()
        scenedetect: Any = importlib.import_module("scenedetect")
        self._detector = scenedetect.ContentDetector(threshold=threshold, min_scene_len=0)
        self._time = lambda number: scenedetect.FrameTimecode(number, float(frame_rate))
        self._number = 0

    def __call__(self, frame: UInt8[np.ndarray, "height width 3"]) -> bool:
        blue_first = np.ascontiguousarray(frame[:, :, ::-1])
        cuts = self._detector.process_frame(self._time(self._number), blue_first)
        self._number += 1
        return bool(cuts)
