"""One optimizer step: its batches in this process, and what is random about them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from soundreel.device import autocast, send
from soundreel.diffusion.noise import PerSampleNoise, derived_seed
from soundreel.training.parallel import Parallel
from soundreel.types import AV


class TrainingNoise(PerSampleNoise):
    """Noise of training samples: on the CPU that of `PerSampleNoise`, on a GPU drawn there.

    Either way every sample has generators of its own, so that neither the batch nor the number of
    processes changes its noise; but the numbers of a GPU are not those of the CPU.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        super().__init__(seeds)
        self._seeds = list(seeds)
        self._on_device: list[torch.Generator] = []

    def __call__(self, template: AV) -> AV:
        if template.device.type == "cpu":
            return super().__call__(template)
        if not self._on_device:
            self._on_device = [
                torch.Generator(template.device).manual_seed(seed) for seed in self._seeds
            ]
        return template.map(self._drawn)

    def _drawn(self, template: Tensor) -> Tensor:
        noise = torch.empty(template.shape, device=template.device)
        for row, generator in zip(noise, self._on_device, strict=True):
            row.normal_(generator=generator)
        return noise.to(template.dtype)


@dataclass(frozen=True)
class Step:
    """All batches that this process contributes to an optimizer step.

    Attributes:
        first_sample: number of the step's first sample, in whichever process it is.
        seed: of noise and dropout.
        precision: "float32", or "bfloat16" for automatic mixed precision.
    """

    batches: Sequence[Any]
    first_sample: int
    parallel: Parallel
    seed: int
    precision: str = "float32"

    @property
    def num_parts(self) -> int:
        """Number of batches over all processes, whose losses are averaged."""
        return len(self.batches) * self.parallel.world_size

    @property
    def is_whole(self) -> bool:
        """Tell whether one batch is the whole step."""
        return self.num_parts == 1

    def passes(self) -> Iterator[tuple[Any, PerSampleNoise]]:
        """Yield each batch with its noise, within the precision and dropout of its forward pass."""
        for batch in self.batches:
            with self.forward(batch):
                yield batch, self.noise(batch)

    def noise(self, batch: Any) -> PerSampleNoise:
        """Return the noise of a batch: sample n has that of (seed, n), whatever the batch size."""
        first = batch.sample_index
        return self.sample_noise(range(first, first + len(batch.label)))

    def sample_noise(self, numbers: Sequence[int]) -> PerSampleNoise:
        """Return the noise of samples by their numbers."""
        return TrainingNoise([derived_seed(self.seed, n) for n in numbers])

    @contextmanager
    def forward(self, batch: Any) -> Iterator[None]:
        """Hold the precision of a forward pass, and dropout masks that follow from the batch.

        Dropout takes no generator: the global ones are seeded for it, and put back after.
        """
        device = batch.av.device
        with ExitStack() as stack:
            devices = [device] if device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices))
            torch.manual_seed(derived_seed(self.seed, batch.sample_index, 1))
            stack.enter_context(autocast(device, self.precision))
            yield


def batch_on_device(batch: Any, device: torch.device) -> Any:
    """Return a batch whose tensors lie on the device, but for its labels, which stay on the CPU.

    Copies to a GPU start from pinned memory and do not wait.
    """
    if device.type == "cpu":
        return batch
    changes: dict[str, Any] = {}
    for entry in fields(batch):
        value = getattr(batch, entry.name)
        if isinstance(value, AV):
            changes[entry.name] = value.map(partial(send, device=device))
        elif isinstance(value, Tensor) and entry.name != "label":
            changes[entry.name] = send(value, device)
    return replace(batch, **changes)
