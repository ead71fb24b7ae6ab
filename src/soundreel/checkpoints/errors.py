"""The one exception that reading and writing models raises."""

from soundreel.errors import SoundreelError


class CheckpointError(SoundreelError):
    """A model file or folder cannot be used; the message says which one, why, and what to do."""


def listed(names: list[str], limit: int = 8) -> str:
    """Return `a, b, c and 5 more`: the first `limit` names, then how many were left out."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
