"""A rendered scene as a clip, for trying things out."""

from typing import Any

from soundreel.clip import Clip
from soundreel.data.scenes.render import RenderOptions, render_clip


def render(kind: str, *, seed: int = 0, **options: Any) -> Clip:
    """Return a scene with its sound; the same one for the same seed and options.

    Args:
        kind: of scene, such as "bells" or "rain"; a wrong one is answered with the list.
        options: fields of `RenderOptions`, such as `height`, `width` and `num_frames`.

    Raises:
        SoundreelError: there is no such kind, or an option is out of range.
    """
    scene = render_clip(RenderOptions(kinds=(kind,), **options), seed, 0)
    return Clip(scene.frames, scene.waveform, scene.options.frame_rate, scene.options.sample_rate)
