"""All presets by the name they have on the command line."""

from collections.abc import Callable

from soundreel.config import ConfigError, MMDiffusionConfig
from soundreel.presets import mm_diffusion

PRESETS: dict[str, Callable[[], MMDiffusionConfig]] = {
    "mm-diffusion-landscape": mm_diffusion.landscape,
    "mm-diffusion-aist": mm_diffusion.aist,
    "mm-diffusion-audioset": mm_diffusion.audioset,
    "mm-diffusion-small": mm_diffusion.small,
    "mm-diffusion-tiny": mm_diffusion.tiny,
}


def preset(name: str) -> MMDiffusionConfig:
    """The configuration of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; one of: {', '.join(PRESETS)}")
    return PRESETS[name]()
