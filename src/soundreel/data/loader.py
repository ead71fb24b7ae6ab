"""Endless batches that can be resumed anywhere: a batch depends on (seed, samples seen) alone.

Sample number n is item `permutation(seed, epoch)[n mod len]` with epoch = n div len, and what is
random about it (its window, its flip) is drawn from a generator seeded by (seed, n). So the number
of worker processes, of ranks and of batches before it change nothing.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from soundreel.data.dataset import Sample
from soundreel.types import AV

MOST_SHUFFLED = 2**20
"""Items whose order is kept in memory; of more, it is computed item by item."""


@runtime_checkable
class Drawable(Protocol):
    """Numbered windows with a random part, such as a `PreparedDataset` or a `LatentDataset`."""

    def __len__(self) -> int: ...

    def draw(self, index: int, generator: torch.Generator) -> Sample: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Windows of a data set.

    Attributes:
        av: pixels and waveform in [-1, 1].
        label: index of each sample's class; -1 for none.
        keys, start_frames: which windows these are.
        sample_index: number of the first sample of this rank's part, for noise that depends on it.
    """

    av: AV
    label: Int[Tensor, " batch"]
    keys: tuple[str, ...]
    start_frames: tuple[int, ...]
    sample_index: int


class ComputedPermutation:
    """A random order of many items, each computed when it is asked for: a Feistel network.

    A position is split into two halves of bits; in each round a hash of one half is added to the
    other, which can be undone, so that no two positions give the same item. Positions beyond the
    last item are sent through again.

    Source:
        Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 6.
    """

    ROUNDS = 6

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self._count = count
        self._half = (max(count - 1, 3).bit_length() + 1) // 2
        self._mask = 2**self._half - 1
        high = 2**62
        self._keys = torch.randint(high, (self.ROUNDS,), generator=generator).tolist()

    def __getitem__(self, position: int) -> int:
        while True:
            left, right = position >> self._half, position & self._mask
            for key in self._keys:
                left, right = right, left ^ (_mixed(right ^ key) & self._mask)
            position = left << self._half | right
            if position < self._count:
                return position


def permutation(
    count: int, generator: torch.Generator
) -> Int[Tensor, " item"] | ComputedPermutation:
    """Return a random order of `count` items; beyond `MOST_SHUFFLED` one that takes no memory."""
    if count <= MOST_SHUFFLED:
        return torch.randperm(count, generator=generator)
    return ComputedPermutation(count, generator)


def _mixed(value: int) -> int:
    """Return 64 bits that depend on all of the value's (the finalizer of SplitMix64)."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31


def sample_generator(seed: int, *numbers: int) -> torch.Generator:
    """Return a CPU generator that depends on the seed and the numbers alone."""
    state = np.random.SeedSequence((seed, *numbers)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class Loader:
    """Iterates over batches for ever, from `start_sample` on.

    Args:
        global_batch_size: samples a step over all ranks; a multiple of `world_size`.
        start_sample: samples seen before; batches go on as if never interrupted.
        shuffle: a new order each epoch; otherwise that of the manifest.
        rank, world_size: this process takes the rank-th part of every global batch.
        num_workers: processes that read ahead; 0 reads in this one.

    Raises:
        ValueError: if the sizes do not fit together.
    """

    def __init__(
        self,
        dataset: Drawable,
        *,
        global_batch_size: int,
        seed: int,
        start_sample: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        if global_batch_size <= 0 or global_batch_size % world_size:
            raise ValueError(
                f"global_batch_size must be a positive multiple of world_size {world_size}, "
                f"got {global_batch_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
        if seed < 0 or start_sample < 0:
            raise ValueError(f"seed and start_sample start at 0, got {seed} and {start_sample}")
        self._dataset = dataset
        self._global_batch_size = global_batch_size
        self._seed = seed
        self._start_sample = start_sample
        self._shuffle = shuffle
        self._rank = rank
        self._world_size = world_size
        self._num_workers = num_workers
        self._permutation: tuple[int, Int[Tensor, " item"] | ComputedPermutation] = (
            -1,
            torch.empty(0).long(),
        )

    def __iter__(self) -> Iterator[Batch]:
        return iter(
            DataLoader(
                _Numbered(self._dataset, self._seed),
                batch_sampler=self._plan(),
                num_workers=self._num_workers,
                collate_fn=_collate,
                worker_init_fn=_leave_signals_to_parent,
                generator=torch.Generator(),  # else a draw from the global one
            )
        )

    def _plan(self) -> Iterator[list[tuple[int, int]]]:
        """Yield (item, sample number) of every sample of every batch of this rank."""
        part = self._global_batch_size // self._world_size
        first = self._start_sample + self._rank * part
        while True:
            yield [(self._item(number), number) for number in range(first, first + part)]
            first += self._global_batch_size

    def _item(self, number: int) -> int:
        epoch, position = divmod(number, len(self._dataset))
        if not self._shuffle:
            return position
        if self._permutation[0] != epoch:
            generator = sample_generator(self._seed, 0, epoch)
            self._permutation = (epoch, permutation(len(self._dataset), generator))
        return int(self._permutation[1][position])


def _leave_signals_to_parent(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which reach every process of the group.

    The training process answers them: it still needs batches to finish its step. A worker ends when
    its parent tells it to, or is gone (PyTorch's worker loop looks every five seconds).
    """
    del worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Numbered(Dataset):
    """A data set whose items are asked for with their sample number, which seeds their draws."""

    def __init__(self, dataset: Drawable, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed

    def __getitem__(self, index: tuple[int, int]) -> tuple[int, Sample]:
        item, number = index
        return number, self._dataset.draw(item, sample_generator(self._seed, 1, number))


def _collate(numbered: list[tuple[int, Sample]]) -> Batch:
    samples = [sample for _, sample in numbered]
    return Batch(
        av=samples[0].av.map(lambda *rows: torch.stack(rows), *(s.av for s in samples[1:])),
        label=torch.tensor([sample.label for sample in samples]),
        keys=tuple(sample.key for sample in samples),
        start_frames=tuple(sample.start_frame for sample in samples),
        sample_index=numbered[0][0],
    )
