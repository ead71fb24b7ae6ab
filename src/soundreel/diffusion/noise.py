"""Sources of standard normal noise for samplers and training.

A source is called with a template and answers with noise of the template's shapes, so that a
sampler never owns a random state.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from soundreel.types import AV


def derived_seed(*numbers: int) -> int:
    """Return a 63-bit seed that depends on all the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


NoiseSource = Callable[[AV], AV]
"""`noise(template)`: standard normal noise with the shapes, dtypes and device of the template."""


class PerSampleNoise:
    """One generator for each sample, so that a sample does not depend on the batch it is in.

    Every call draws the video of a sample, then its audio. The generators live on the CPU and draw
    in float32: a seed gives the same noise on every device and in every precision.

    Args:
        seeds: one per sample of the batches it will be called with.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        if not seeds:
            raise ValueError("PerSampleNoise needs one seed per sample, got none")
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, template: AV) -> AV:
        if template.batch_size != len(self.generators):
            raise ValueError(
                f"this noise source has {len(self.generators)} seeds, but the batch has "
                f"{template.batch_size} samples; make one seed per sample"
            )
        rows = [template.map(lambda x, g=g: _draw(x, g)) for g in self.generators]
        return rows[0].map(lambda *noise: torch.stack(noise), *rows[1:]).map(_like, template)


class ReplayNoise:
    """Answers with recorded noise, in order; for tests and for comparing samplers.

    Args:
        recorded: one entry for each call to come.
    """

    def __init__(self, recorded: Sequence[AV]) -> None:
        self._remaining = iter(list(recorded))

    def __call__(self, template: AV) -> AV:
        recorded = next(self._remaining, None)
        if recorded is None:
            raise ValueError("no recorded noise is left; record one entry for each draw")
        if [x.shape for x in recorded.tensors] != [x.shape for x in template.tensors]:
            raise ValueError(
                f"recorded noise has shapes {[tuple(x.shape) for x in recorded.tensors]}, "
                f"but {[tuple(x.shape) for x in template.tensors]} are asked for"
            )
        return recorded.map(_like, template)


def _draw(template: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(template.shape[1:], generator=generator)


def _like(noise: Tensor, template: Tensor) -> Tensor:
    return noise.to(device=template.device, dtype=template.dtype)
