"""`soundreel export MODEL DEST`: a model folder as official checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.hub import resolve_model
from soundreel.checkpoints.store import load_model_index
from soundreel.cli.main import write
from soundreel.errors import SoundreelError
from soundreel.systems import all_systems


@dataclass(frozen=True, kw_only=True)
class ExportArguments:
    """Write a model folder as files that the original code of its system reads."""

    model: Annotated[str, tyro.conf.Positional]
    """Model folder, or owner/name on the Hub."""
    dest: Annotated[Path, tyro.conf.Positional]
    """Folder for one file per network; made if absent."""


def export(arguments: Annotated[ExportArguments, tyro.conf.arg(name="")]) -> int:
    """Write a model folder back as official checkpoints."""
    if arguments.dest.exists() and not arguments.dest.is_dir():
        raise SoundreelError(f"{arguments.dest} is a file; give a folder")
    folder = resolve_model(arguments.model)
    name = load_model_index(folder).system
    exports = {entry.name: entry.export for entry in all_systems() if entry.export is not None}
    if name not in exports:
        raise CheckpointError(
            f"{folder}: only models of {', '.join(exports)} have an official form, this is {name}"
        )
    for path in exports[name](folder, arguments.dest):
        write(str(path))
    return 0
