"""`soundreel export MODEL DEST`: a model folder as official checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soundreel.checkpoints.hub import resolve_model
from soundreel.cli.main import write
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.export_official import export_mm_diffusion


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write an MM-Diffusion model folder as files that the original code reads."""

    model: Annotated[str, tyro.conf.Positional]
    """Model folder, or owner/name on the Hub."""
    dest: Annotated[Path, tyro.conf.Positional]
    """Folder for unet.pt and super_resolution.pt; made if absent."""


def export(arguments: Annotated[ExportArguments, tyro.conf.arg(name="")]) -> int:
    """Write a model folder back as official checkpoints."""
    if arguments.dest.exists() and not arguments.dest.is_dir():
        raise SoundreelError(f"{arguments.dest} is a file; give a folder")
    for path in export_mm_diffusion(resolve_model(arguments.model), arguments.dest):
        write(str(path))
    return 0
