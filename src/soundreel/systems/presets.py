"""All presets by the name they have on the command line."""

from collections.abc import Callable

from soundreel.config_io import ConfigError
from soundreel.systems.mm_diffusion import presets as mm_diffusion
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_ldm import presets as mm_ldm
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.super_resolution import presets as mm_diffusion_sr
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig

RunConfig = MMDiffusionConfig | SuperResolutionRunConfig | MMLDMConfig

PRESETS: dict[str, Callable[[], RunConfig]] = {
    "mm-diffusion-landscape": mm_diffusion.landscape,
    "mm-diffusion-aist": mm_diffusion.aist,
    "mm-diffusion-audioset": mm_diffusion.audioset,
    "mm-diffusion-small": mm_diffusion.small,
    "mm-diffusion-tiny": mm_diffusion.tiny,
    "mm-diffusion-sr": mm_diffusion_sr.super_resolution,
    "mm-diffusion-sr-small": mm_diffusion_sr.small,
    "mm-ldm-landscape": mm_ldm.landscape,
    "mm-ldm-aist": mm_ldm.aist,
    "mm-ldm-audioset": mm_ldm.audioset,
    "mm-ldm-small": mm_ldm.small,
    "mm-ldm-scenes": mm_ldm.scenes,
    "mm-ldm-tiny": mm_ldm.tiny,
}


def preset(name: str) -> RunConfig:
    """The configuration of a preset.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; one of: {', '.join(PRESETS)}")
    return PRESETS[name]()
