"""Open any model folder as the pipeline of its system."""

from pathlib import Path

import torch

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.hub import resolve_model
from soundreel.checkpoints.store import load_model_index
from soundreel.pipelines import mm_diffusion, mm_ldm_folder, super_resolution
from soundreel.pipelines.mm_diffusion import MMDiffusionPipeline
from soundreel.pipelines.mm_ldm import MMLDMPipeline

Pipeline = MMDiffusionPipeline | MMLDMPipeline


def load(
    name_or_path: str | Path | None = None, *, device: torch.device | str | None = None
) -> Pipeline:
    """A model, ready to generate.

    Args:
        name_or_path: a model folder, or `owner/name` on the Hub.
        device: default: CUDA if there is one, else the CPU.

    Raises:
        CheckpointError: there is no such model, or its folder is incomplete or damaged.
    """
    if name_or_path is None:
        raise CheckpointError(
            "this release embeds no default model yet; give the folder of one, for example the"
            " `model` folder that `soundreel train` leaves in its output"
        )
    folder = resolve_model(name_or_path)
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
