"""Clips as networks make them, before their pictures are rounded to bytes.

Films are joined of these; what people get is `rounded`, what super-resolution gets is not.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float32, UInt8

from soundreel.clip import Clip
from soundreel.media.pixels import rounded_to_bytes, video_to_floats


@dataclass(frozen=True, slots=True, eq=False)
class UnroundedClip(Clip):
    """A clip whose frames are float32 on the scale of bytes, beyond 0 and 255 where a model is."""

    frames: Float32[np.ndarray, "frame height width 3"] | None
    frame_type = np.float32  # pyrefly: ignore[bad-override]
    frames_of = staticmethod(video_to_floats)  # pyrefly: ignore[bad-override]

    def rounded(self) -> Clip:
        """Return the clip in bytes."""
        frames = None if self.frames is None else rounded_to_bytes(self.frames)
        return Clip(frames, self.waveform, self.frame_rate, self.sample_rate)


def clip_of(
    frames: UInt8[np.ndarray, "frame height width 3"]
    | Float32[np.ndarray, "frame height width 3"]
    | None,
    waveform: Float32[np.ndarray, "channel sample"] | None,
    frame_rate: Fraction,
    sample_rate: int,
) -> Clip:
    """Return a clip of frames in bytes, or of unrounded ones."""
    is_float = frames is not None and frames.dtype != np.uint8
    kind = UnroundedClip if is_float else Clip
    return kind(frames, waveform, frame_rate, sample_rate)


def rounded(pieces: Iterable[Clip]) -> Iterator[Clip]:
    """Yield pieces in bytes; those that are in bytes already stay as they are."""
    for piece in pieces:
        yield piece.rounded() if isinstance(piece, UnroundedClip) else piece
