"""Where and how exactly to compute: one rule for every command, pipeline and training run."""

import functools
import time

import torch

from soundreel.errors import SoundreelError

PRECISIONS = ("auto", "float32", "bfloat16")
_SIDE = 1024  # of the matrices that are multiplied to compare precisions
_MARGIN = 1.1  # bfloat16 must be so many times as fast to be worth its rounding


def find_device(wanted: str | torch.device | None = None) -> torch.device:
    """Return a device that exists; None or "auto" is CUDA where there is one, else the CPU.

    Raises:
        SoundreelError: there is no such device on this machine.
    """
    if wanted is None or str(wanted) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        known.append("mps")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    exists = device is not None and (str(device) in known or f"{device}:0" in known)
    if device is None or not exists:
        raise SoundreelError(
            f"device {str(wanted)!r} does not exist here; one of {', '.join(known)}"
        )
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which networks compute as "float32", "bfloat16" or "auto" says.

    Raises:
        SoundreelError: another word.
    """
    enabled = resolve_precision(device, precision) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def resolve_precision(device: torch.device, precision: str) -> str:
    """Return "float32" or "bfloat16"; "auto" is the one that a short measured product favours.

    Raises:
        SoundreelError: another word.
    """
    if precision not in PRECISIONS:
        raise SoundreelError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    speedup = _product_s(str(device), torch.float32) / _product_s(str(device), torch.bfloat16)
    return "bfloat16" if speedup > _MARGIN else "float32"


@functools.cache
def _product_s(device: str, dtype: torch.dtype) -> float:
    """Return seconds that one product of square matrices takes, the best of three."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype, device=device)

    def once() -> float:
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # reading a value waits for the device
        return time.perf_counter() - started

    once()
    return min(once() for _ in range(3))
