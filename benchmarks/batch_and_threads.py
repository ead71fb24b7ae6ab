"""How much the same clip differs between batch sizes and numbers of threads.

    python benchmarks/batch_and_threads.py [MODEL ...]

Each model (default: the embedded one) samples eight clips from the same seeds, in four steps and
float32, in batches of 1, 3 and 8, with one thread and with two. Of the differences to batches of 1
with one thread the table has the largest: of the pixels, as a share of their range; of the samples,
as a share of the clip's peak; and of the short-time magnitudes of the sound, as a share of all
their energy.
"""

import sys

import torch
from torch import Tensor

import soundreel
from soundreel.audio.stft import stft
from soundreel.protocols import Pipeline
from soundreel.types import AV

COUNT, NUM_STEPS, PRECISION = 8, 4, "float32"
SETTINGS = ((3, 1), (8, 1), (1, 2), (8, 2))
"""Clips in a batch, and threads."""


def signals(pipe: Pipeline, batch_size: int, threads: int) -> AV:
    """Return pixels and waveforms of all clips, as floats."""
    torch.set_num_threads(threads)
    asked = {"seed": 0, "batch_size": batch_size, "num_steps": NUM_STEPS, "precision": PRECISION}
    return AV.cat(list(pipe.signals(count=COUNT, **asked, progress=None)))


def differences(found: AV, expected: AV) -> dict[str, float]:
    """Return the largest difference of any clip."""
    sound, truth = found["audio"].flatten(1), expected["audio"].flatten(1)
    peaks = truth.abs().amax(1, keepdim=True).clamp(min=1e-6)
    one, other = magnitudes(sound), magnitudes(truth)
    energy = other.square().sum(1).clamp(min=1e-12)
    return {
        "pixels": float((found["video"] - expected["video"]).abs().max()) / 2,
        "samples": float(((sound - truth).abs() / peaks).max()),
        "magnitudes": float(((one - other).square().sum(1) / energy).sqrt().max()),
    }


def magnitudes(waveforms: Tensor) -> Tensor:
    return stft(waveforms, fft_size=512, hop_length=128).abs().flatten(1)


def main() -> None:
    print("| model | batch | threads | pixels | samples | magnitudes |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in sys.argv[1:] or [""]:
        pipe = soundreel.load(name) if name else soundreel.load()
        expected = signals(pipe, 1, 1)
        for batch_size, threads in SETTINGS:
            found = differences(signals(pipe, batch_size, threads), expected)
            numbers = " | ".join(f"{value:.1e}" for value in found.values())
            print(f"| {name or 'embedded'} | {batch_size} | {threads} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
