"""MM-LDM as a system: what the registry, the command line and the page know of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from soundreel.checkpoints.store import ModelFolder
from soundreel.protocols import Importer, System
from soundreel.systems.mm_ldm import long_presets, presets, small_presets
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.first_stage_pipeline import FirstStagePipeline
from soundreel.systems.mm_ldm.folder import KINDS, load_first_stage, load_mm_ldm
from soundreel.systems.mm_ldm.folder import SYSTEM as NAME
from soundreel.systems.mm_ldm.import_stable_diffusion import DECODER, FIRST_STAGE
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.recipes import RECIPES
from soundreel.systems.mm_ldm.settings import MMLDMOptions
from soundreel.systems.mm_ldm.stable_diffusion_folder import import_stable_diffusion
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.systems.mm_ldm.training import stages_of, train_mm_ldm


@dataclass(frozen=True, kw_only=True)
class NoFlags:
    """The files tell everything."""


def _import(files: Sequence[Path], target: Path, flags: NoFlags) -> list[str]:
    return import_stable_diffusion(files, target)


def _load(model: ModelFolder, device: torch.device) -> MMLDMPipeline | FirstStagePipeline:
    if model.components.keys() <= {FIRST_STAGE, DECODER}:  # as `import stable-diffusion` leaves it
        return FirstStagePipeline(load_first_stage(model)).to(device)
    return load_mm_ldm(model).to(device)


SYSTEM = System(
    name=NAME,
    config_type=MMLDMConfig,
    presets={
        "mm-ldm-landscape": presets.landscape,
        "mm-ldm-aist": presets.aist,
        "mm-ldm-audioset": presets.audioset,
        "mm-ldm-small": small_presets.small,
        "mm-ldm-small-native": small_presets.small_native,
        "mm-ldm-scenes": small_presets.scenes,
        "mm-ldm-tiny": tiny,
        "mm-ldm-long": long_presets.long,
        "mm-ldm-long-landscape": long_presets.long_landscape,
        "mm-ldm-long-small": long_presets.long_small,
        "mm-ldm-long-scenes": long_presets.long_scenes,
        "mm-ldm-long-tiny": long_presets.long_tiny,
    },
    stages=stages_of,
    train=train_mm_ldm,
    load=_load,
    options=MMLDMOptions,
    recipes=RECIPES,
    components=frozenset((KINDS["first_stage"],)),
    importers={
        "stable-diffusion": Importer(
            summary="Stable Diffusion v1's autoencoder and U-Net, to start MM-LDM from",
            options=NoFlags,
            read=_import,
        )
    },
)
