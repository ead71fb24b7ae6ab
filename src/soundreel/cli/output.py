"""The folder a command writes to: checked before work, never mixed with what was there."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from soundreel.errors import SoundreelError
from soundreel.files import sweep, write_text

SHEET = "contact-sheet.png"


def check_folder(out: Path, flag: str = "--out") -> None:
    """Check that there is, or can be made, a folder to write to; sweep it of own leftovers.

    Raises:
        SoundreelError: nothing can be written there.
    """
    if out.exists() and not out.is_dir():
        raise SoundreelError(f"{flag} {out} is a file; give a folder")
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise SoundreelError(f"{flag} {out}: cannot write in {nearest}; give another folder")
    if out.is_dir():
        sweep(out)


def clear_earlier(out: Path, patterns: Iterable[str], *, overwrite: bool) -> None:
    """Remove what an earlier run of the command left, if that is asked for.

    Raises:
        SoundreelError: there is something, and it was not asked for.
    """
    earlier = sorted(path for pattern in patterns for path in out.glob(pattern) if path.is_file())
    if earlier and not overwrite:
        raise SoundreelError(
            f"--out {out} holds {earlier[0].name} already; choose another folder, or add"
            " --overwrite to replace what is there"
        )
    for path in earlier:
        path.unlink()


def write_provenance(path: Path, facts: dict[str, Any]) -> None:
    """Write how a file was made as JSON beside it."""
    write_text(path, json.dumps(facts, indent=1) + "\n")
