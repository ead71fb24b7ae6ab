"""Choose device and precision: one rule for every command, pipeline and training run."""

import functools
import logging
import time

import torch
from torch import Tensor
from torch.nn import functional

from soundreel.errors import SoundreelError

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")
_CPU_SIDE, _GPU_SIDE = 512, 4096  # of the matrices that are multiplied to compare precisions
_MAX_S = 0.2  # no further product after so many seconds
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


def send(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; the host does not wait for a copy from the CPU to CUDA.

    Such a copy starts from pinned memory: from any other, CUDA first waits for all earlier work.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


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
    chosen = precision
    if precision == "auto":
        chosen, speedup = faster_precision(device)
        _announce(str(device), chosen, speedup)
    if chosen == "bfloat16" and device.type == "cpu":
        _make_attention_work()
    return chosen


def faster_precision(device: torch.device) -> tuple[str, float]:
    """Return "float32" or "bfloat16", and how many times as fast bfloat16 is."""
    seconds = [_product_s(str(device), dtype) for dtype in (torch.float32, torch.bfloat16)]
    chosen = "bfloat16" if seconds[0] > _MARGIN * seconds[1] else "float32"
    return chosen, seconds[0] / seconds[1]


@functools.cache
def _make_attention_work() -> None:
    """Do without PyTorch's fused attention in this process if it refuses bfloat16.

    On processors with AMX it does where `ATEN_CPU_CAPABILITY` is below "avx512".
    """
    x = torch.ones(1, 1, 64, 16, dtype=torch.bfloat16)
    try:
        functional.scaled_dot_product_attention(x, x, x)
    except RuntimeError:
        torch.backends.cuda.enable_flash_sdp(False)  # that of the CPU obeys it, too
        logger.info("bfloat16: without fused attention, which ATEN_CPU_CAPABILITY rules out here")


@functools.cache
def _announce(device: str, chosen: str, speedup: float) -> None:
    """Say once what "auto" has become."""
    logger.info(
        "precision auto: %s on %s, where bfloat16 is %.3g times as fast", chosen, device, speedup
    )


@functools.cache
def _product_s(device: str, dtype: torch.dtype) -> float:
    """Return seconds that one product of square matrices takes, the best of up to five.

    Processors without instructions for bfloat16 take hundreds of times as long; one product tells.
    """

    def once(side: int) -> float:
        matrix = torch.ones(side, side, dtype=dtype, device=device)
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # reading a value waits for the device
        return time.perf_counter() - started

    once(64)  # loads what is loaded at the first product
    side = _CPU_SIDE if device == "cpu" else _GPU_SIDE
    times = [once(side)]
    while len(times) < 5 and sum(times) < _MAX_S:
        times.append(once(side))
    return min(times)
