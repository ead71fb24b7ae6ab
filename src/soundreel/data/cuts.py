"""Find where one shot ends and another begins, by PySceneDetect (extra `data`)."""

import importlib
import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from soundreel.data.manifest import DataError
from soundreel.media.container import DEFAULT_TRACKS, Tracks
from soundreel.media.decode import read_frames
from soundreel.media.framing import Framing
from soundreel.media.probe import MediaInfo

HEIGHT = 90
"""Pixels to which pictures are reduced for the search."""
MAX_FRAME_RATE = Fraction(30)


def require_scene_detection() -> None:
    """Raise a DataError, with the way to install it, if PySceneDetect is absent."""
    if importlib.util.find_spec("scenedetect") is None:
        raise DataError(
            "scene_cuts split needs PySceneDetect, which is not installed: "
            "pip install 'soundreel[data]', or use scene_cuts keep"
        )


def find_cuts(
    path: Path,
    info: MediaInfo,
    start: Fraction,
    end: Fraction | None,
    tracks: Tracks = DEFAULT_TRACKS,
) -> list[Fraction]:
    """Find the times at which a new shot begins, in seconds on the file's clock.

    The measure is PySceneDetect's adaptive detector with its defaults: the change of hue,
    saturation and brightness between two frames must stand out from that of the frames around them,
    so that fast motion and flashes are no cuts. It needs the source's own frame rate, hence a pass
    of its own over the video. Fades are not found.

    Args:
        start, end: the piece to search; None is the end of the file.
    """
    scenedetect: Any = importlib.import_module("scenedetect")
    detector = scenedetect.AdaptiveDetector(min_scene_len=1)
    rate = min(info.frame_rate or MAX_FRAME_RATE, MAX_FRAME_RATE)
    width = max(1, round(HEIGHT * info.width / info.height))
    framing = Framing(kind="letterbox", height=HEIGHT, width=width)
    cuts: list[Fraction] = []
    for number, picture in enumerate(
        read_frames(path, frame_rate=rate, start=start, framing=framing, tracks=tracks)
    ):
        if end is not None and start + number / rate > end:
            break
        blue_first = np.ascontiguousarray(picture[:, :, ::-1])
        time = scenedetect.FrameTimecode(number, float(rate))
        cuts += [start + cut.frame_num / rate for cut in detector.process_frame(time, blue_first)]
    return cuts
