"""Open any model folder as the pipeline of its system."""

from pathlib import Path

import torch

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.hub import resolve_model
from soundreel.checkpoints.store import load_model_index
from soundreel.systems.mm_diffusion import pipeline as mm_diffusion
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline
from soundreel.systems.mm_ldm import folder as mm_ldm_folder
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.super_resolution import pipeline as super_resolution

Pipeline = MMDiffusionPipeline | MMLDMPipeline
DEFAULT_MODEL = Path(__file__).parents[1] / "assets" / "default_model"


def load(
    name_or_path: str | Path | None = None, *, device: torch.device | str | None = None
) -> Pipeline:
    """A model, ready to generate.

    Args:
        name_or_path: a model folder, or `owner/name` on the Hub; default: the model that comes with
            the package, an MM-LDM of rendered scenes.
        device: default: CUDA if there is one, else the CPU.

    Raises:
        CheckpointError: there is no such model, or its folder is incomplete or damaged.
    """
    folder = resolve_model(DEFAULT_MODEL if name_or_path is None else name_or_path)
    index = load_model_index(folder)
    system = index.system
    if list(index.components) == [super_resolution.COMPONENT]:
        raise CheckpointError(
            f"{folder}: holds a super-resolution model alone, which enlarges clips: use it with"
            " `soundreel upscale` or `soundreel generate --upscale`"
        )
    if system == mm_diffusion.SYSTEM:
        pipeline = MMDiffusionPipeline.load(folder)
    elif system == mm_ldm_folder.SYSTEM:
        pipeline = mm_ldm_folder.load_mm_ldm(folder)
    else:
        raise CheckpointError(f"{folder}: unknown system {system!r}; update soundreel")
    return pipeline.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
