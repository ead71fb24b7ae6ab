"""Rendering at the sizes of a model's or data set's clips.

A module of its own: the renderer itself needs no PyTorch, and its worker processes start without.
"""

from typing import Any

from soundreel.data.scenes.render import RenderOptions
from soundreel.types import ClipSpec


def options_for(spec: ClipSpec, **others: Any) -> RenderOptions:
    """Return options that render clips of `spec`'s sizes and rates.

    Args:
        others: further options, or others in place of `spec`'s.

    Raises:
        SoundreelError: an option is out of its range.
    """
    sizes: dict[str, Any] = {
        "num_frames": spec.num_frames,
        "height": spec.height,
        "width": spec.width,
        "frame_rate": spec.frame_rate,
        "sample_rate": spec.sample_rate,
    }
    return RenderOptions(**(sizes | others))
