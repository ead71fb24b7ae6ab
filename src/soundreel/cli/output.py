"""The folder a command writes to: checked before work, never mixed with what was there."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from soundreel.errors import SoundreelError

SHEET = "contact-sheet.png"


def check_folder(out: Path, flag: str = "--out") -> None:
    """Raise `SoundreelError` unless there is, or can be made, a folder to write to."""
    if out.exists() and not out.is_dir():
        raise SoundreelError(f"{flag} {out} is a file; give a folder")
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise SoundreelError(f"{flag} {out}: cannot write in {nearest}; give another folder")


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
