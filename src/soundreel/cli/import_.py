"""`soundreel import NAME FILE... DEST`: weights of other code bases into a model folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from soundreel.cli.main import write
from soundreel.cli.options import flags_of
from soundreel.errors import SoundreelError
from soundreel.protocols import Importer
from soundreel.systems import all_systems

Flags = TypeVar("Flags")


@dataclass(frozen=True, kw_only=True)
class ImportArguments(Generic[Flags]):
    """Turn checkpoints of another code base into a model folder.

    Files are read without running any code in them, and every tensor is accounted for.
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE... DEST")]
    """Checkpoint files; then, last, the folder to make."""
    flags: Annotated[Flags, tyro.conf.arg(name="")] = field()


def import_(arguments: list[str]) -> int:
    """Turn official checkpoints into a model folder."""
    importers = {
        name: importer for entry in all_systems() for name, importer in entry.importers.items()
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        write(_usage(importers))
        return 0
    name = arguments[0]
    if name not in importers:
        raise SoundreelError(f"import: one of {', '.join(importers)}, got {name!r}")
    importer = importers[name]
    kind: Any = ImportArguments
    parsed: ImportArguments[Any] = tyro.cli(
        kind[flags_of(importer.options)],
        args=arguments[1:],
        prog=f"soundreel import {name}",
        use_underscores=False,
    )
    *files, target = parsed.paths or (None,)
    if not files or target is None:
        raise SoundreelError("give the checkpoint files and, last, the folder to make")
    options = importer.options(**vars(parsed.flags))
    for line in importer.read(files, target, options):
        write(line)
    write(f"model: {target}")
    return 0


def _usage(importers: dict[str, Importer]) -> str:
    lines = [f"  {name}: {importer.summary}" for name, importer in importers.items()]
    return "\n".join(["usage: soundreel import NAME FILE... DEST [options]", "", *lines])
