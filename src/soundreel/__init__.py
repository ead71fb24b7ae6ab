"""Soundreel: train, sample and evaluate models that generate video and its sound together."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Threads that hardly spin when they wait, said before torch is loaded: beside another busy process,
# spinning ones make two threads a hundred times slower than one; without any, small networks take
# up to twice as long on free cores, whose threads fall asleep between operations.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Large tensors lie in pages of 2 MiB where Linux has them: asking for each of 4 KiB anew took a
# tenth to a quarter of a forward pass of the Coupled U-Net.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

_EXPORTS = {
    "AV": "soundreel.types",
    "Clip": "soundreel.clip",
    "ClipSpec": "soundreel.types",
    "MediaError": "soundreel.media.errors",
    "load": "soundreel.systems",
    "render": "soundreel.data.scenes.clip",
}
__all__ = ["AV", "Clip", "ClipSpec", "MediaError", "__version__", "load", "render"]

if TYPE_CHECKING:
    from soundreel.clip import Clip
    from soundreel.data.scenes.clip import render
    from soundreel.media.errors import MediaError
    from soundreel.systems import load
    from soundreel.types import AV, ClipSpec


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds, so `soundreel --help` must not pay for it.
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'soundreel' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
