"""A rendered scene as a clip, for trying things out."""

from typing import Any

from soundreel.clip import Clip
from soundreel.data.scenes.render import RenderedClip, RenderOptions, render_clip
from soundreel.data.scenes.sizes import options_for
from soundreel.types import ClipSpec

UNSEEN_SEED = 2**31  # far from the seeds that training sets are rendered with


def render(kind: str, *, seed: int = 0, **options: Any) -> Clip:
    """Return a scene with its sound; the same one for the same seed and options.

    Args:
        kind: of scene, such as "bells" or "rain"; a wrong one is answered with the list.
        options: fields of `RenderOptions`, such as `height`, `width` and `num_frames`.

    Raises:
        SoundreelError: there is no such kind, or an option is out of range.
    """
    return _clip(render_clip(RenderOptions(kinds=(kind,), **options), seed, 0))


def unseen_scene(kind: str, spec: ClipSpec, seed: int) -> Clip:
    """Return a scene that no training set holds, of a model's size."""
    return _clip(render_clip(options_for(spec, kinds=(kind,)), UNSEEN_SEED + seed, 0))


def _clip(scene: RenderedClip) -> Clip:
    return Clip(scene.frames, scene.waveform, scene.options.frame_rate, scene.options.sample_rate)
