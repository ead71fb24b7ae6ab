"""`soundreel pack MODEL DEST`: a copy of a model folder at a quarter of its size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soundreel.checkpoints.packed import pack_model
from soundreel.cli.main import write
from soundreel.errors import SoundreelError


@dataclass(frozen=True, kw_only=True)
class PackArguments:
    """Copy a model folder with its matrices as eight-bit integers, to share or embed it."""

    model: Annotated[str, tyro.conf.Positional]
    """Model folder, or owner/name on the Hub."""
    dest: Annotated[Path, tyro.conf.Positional]
    """Folder of the copy; a model folder that is there is replaced."""


def pack(arguments: Annotated[PackArguments, tyro.conf.arg(name="")]) -> int:
    """Copy a model folder at a quarter of its size."""
    if arguments.dest.exists() and not arguments.dest.is_dir():
        raise SoundreelError(f"{arguments.dest} is a file; give a folder")
    size = pack_model(arguments.model, arguments.dest)
    write(f"{arguments.dest}: {size / 2**20:.1f} MiB of weights")
    return 0
