"""MM-Diffusion's super-resolution as a system of its own: it enlarges clips of any model."""

import torch

from soundreel.checkpoints.store import ModelFolder
from soundreel.protocols import System
from soundreel.systems.super_resolution import presets
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.pipeline import (
    SuperResolutionPipeline,
    UpscaleConfig,
)
from soundreel.systems.super_resolution.training import stages_of, train_super_resolution


def _load(model: ModelFolder, device: torch.device) -> SuperResolutionPipeline:
    return SuperResolutionPipeline.load(model).to(device)


SYSTEM = System(
    name="mm-diffusion-sr",
    config_type=SuperResolutionRunConfig,
    presets={
        "mm-diffusion-sr": presets.super_resolution,
        "mm-diffusion-sr-small": presets.small,
    },
    stages=stages_of,
    train=train_super_resolution,
    load=_load,
    options=UpscaleConfig,
    upscales=True,
    components=frozenset(("super-resolution",)),
)
