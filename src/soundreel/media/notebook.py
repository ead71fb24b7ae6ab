"""Clips as notebooks show them: a player within the page, with nothing to fetch."""

import base64
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.media.encode import AAC_RATES, write_mp4, write_wav

MIN_WIDTH = 256
"""Width, in pixels of the page, to which smaller pictures are enlarged by the player."""


def player(
    frames: UInt8[np.ndarray, "frame height width 3"] | None,
    waveform: Float32[np.ndarray, "channel sample"] | None,
    frame_rate: Fraction,
    sample_rate: int,
) -> str:
    """Return an HTML element that plays a clip, its data included.

    Sound at a rate that MP4 lacks is left out beside pictures; sound alone is a WAV file.
    """
    with tempfile.TemporaryDirectory() as folder:
        if frames is None and waveform is not None:
            path, element, kind = Path(folder) / "clip.wav", "audio controls", "audio/wav"
            write_wav(path, waveform, sample_rate)
        else:
            path, element, kind = Path(folder) / "clip.mp4", "video controls loop", "video/mp4"
            heard = waveform if sample_rate in AAC_RATES else None
            write_mp4(path, frames, heard, frame_rate, sample_rate)
        data = base64.b64encode(path.read_bytes()).decode()
    shown = "" if frames is None else f' width="{max(MIN_WIDTH, frames.shape[2])}"'
    return f'<{element}{shown} src="data:{kind};base64,{data}"></{element.split()[0]}>'
