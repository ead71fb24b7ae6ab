"""Batches are a function of the seed and the samples seen."""

import subprocess
import sys
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from soundreel.data.dataset import PreparedDataset
from soundreel.data.loader import Batch, ComputedPermutation, Loader, permutation
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.types import AV, ClipSpec

SPEC = ClipSpec(num_frames=16, height=8, width=8)


@pytest.fixture
def dataset(tmp_path, make_video) -> PreparedDataset:
    """13 windows in 3 clips of 2 classes."""
    for number, duration_s in enumerate((2.0, 1.7, 2.1)):
        path = tmp_path / "in" / f"class{number % 2}" / f"{number}.mkv"
        make_video(path, duration_s=duration_s, first_level=40 * number)
    options = PrepareOptions(height=8, width=8, labels="folder")
    prepare_dataset(tmp_path / "in", tmp_path / "out", options)
    return PreparedDataset(tmp_path / "out", spec=SPEC, cache=True, flip_probability=0.5)


def _take(loader: Loader, count: int) -> list[Batch]:
    return list(islice(loader, count))


def _windows(batches: list[Batch]) -> list[tuple[str, int]]:
    return [pair for batch in batches for pair in zip(batch.keys, batch.start_frames, strict=True)]


def _equal(one: Batch, other: Batch) -> bool:
    names = (one.keys, one.start_frames, one.sample_index)
    return (
        names == (other.keys, other.start_frames, other.sample_index)
        and torch.equal(one.av["video"], other.av["video"])
        and torch.equal(one.av["audio"], other.av["audio"])
        and torch.equal(one.label, other.label)
    )


def test_batches_have_the_shapes_and_ranges_of_models(dataset):
    (batch,) = _take(Loader(dataset, global_batch_size=4, seed=0), 1)
    assert batch.av["video"].shape == (4, *SPEC.video_shape)
    assert batch.av["audio"].shape == (4, *SPEC.audio_shape)
    assert batch.av["video"].dtype == batch.av["audio"].dtype == torch.float32
    assert batch.label.dtype == torch.int64
    assert all(
        int(label) == int(key[0]) % 2 for label, key in zip(batch.label, batch.keys, strict=True)
    )


def test_every_epoch_holds_each_window_once_in_another_order(dataset):
    windows = _windows(_take(Loader(dataset, global_batch_size=13, seed=3), 3))
    epochs = [windows[13 * epoch : 13 * epoch + 13] for epoch in range(3)]
    assert all(len(set(epoch)) == 13 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    ordered = _windows(_take(Loader(dataset, global_batch_size=13, seed=3, shuffle=False), 2))
    assert ordered[:13] == sorted(ordered[:13], key=lambda window: window[1]) or ordered[0][1] == 0
    assert ordered[:13] == ordered[13:]


@pytest.mark.parametrize("start", [4, 12, 200])
def test_resuming_gives_the_batches_an_uninterrupted_run_would_have_seen(dataset, start):
    whole = _take(Loader(dataset, global_batch_size=4, seed=7), start // 4 + 3)[start // 4 :]
    resumed = _take(Loader(dataset, global_batch_size=4, seed=7, start_sample=start), 3)
    assert all(_equal(one, other) for one, other in zip(whole, resumed, strict=True))
    assert [batch.sample_index for batch in resumed] == [start, start + 4, start + 8]


def test_batch_size_does_not_change_the_samples(dataset):
    def join(batches: list[Batch]) -> AV:
        return AV.cat([batch.av for batch in batches])

    ones = join(_take(Loader(dataset, global_batch_size=1, seed=1), 24))
    eights = join(_take(Loader(dataset, global_batch_size=8, seed=1), 3))
    assert torch.equal(ones["video"], eights["video"])
    assert torch.equal(ones["audio"], eights["audio"])


def test_ranks_share_each_global_batch_without_overlap(dataset):
    whole = _take(Loader(dataset, global_batch_size=6, seed=2), 3)
    parts = [
        _take(Loader(dataset, global_batch_size=6, seed=2, rank=rank, world_size=3), 3)
        for rank in range(3)
    ]
    for step, batch in enumerate(whole):
        joined = AV.cat([part[step].av for part in parts])
        assert torch.equal(joined["video"], batch.av["video"])
        assert [part[step].sample_index for part in parts] == [6 * step + 2 * r for r in range(3)]


def test_worker_processes_read_the_same_batches(dataset):
    plain = _take(Loader(dataset, global_batch_size=4, seed=5), 3)
    read_ahead = _take(Loader(dataset, global_batch_size=4, seed=5, num_workers=1), 3)
    assert all(_equal(one, other) for one, other in zip(plain, read_ahead, strict=True))


def test_workers_end_with_a_parent_that_was_killed(dataset, tmp_path, wait_until_gone):
    """They ignore signals, so they must notice by themselves."""
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from soundreel.data.dataset import PreparedDataset\n"
        "from soundreel.data.loader import Loader\n"
        "from soundreel.types import ClipSpec\n"
        f"dataset = PreparedDataset(Path({str(tmp_path / 'out')!r}),"
        " spec=ClipSpec(num_frames=16, height=8, width=8))\n"
        "batches = iter(Loader(dataset, global_batch_size=4, seed=0, num_workers=2))\n"
        "next(batches)\n"
        "print(*[worker.pid for worker in batches._workers], flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        workers = [int(number) for number in process.stdout.readline().split()]
        process.kill()
    assert len(workers) == 2
    wait_until_gone(workers, within_s=60)


def test_seeds_differ_and_the_global_generator_is_left_alone(dataset):
    before = torch.get_rng_state()
    batches = [_take(Loader(dataset, global_batch_size=13, seed=seed), 1)[0] for seed in range(4)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({batch.keys + batch.start_frames for batch in batches}) == 4


def test_random_windows_take_each_clip_once_an_epoch(dataset, tmp_path):
    clips = PreparedDataset(tmp_path / "out", spec=SPEC, stride="random")
    windows = _windows(_take(Loader(clips, global_batch_size=3, seed=0), 10))
    assert Counter(key for key, _ in windows) == dict.fromkeys({key for key, _ in windows}, 10)
    assert len({start for _, start in windows}) > 3


def test_settings_that_do_not_fit_are_refused(dataset):
    for wrong, message in (
        ({"global_batch_size": 5, "world_size": 2}, "multiple of world_size 2"),
        ({"global_batch_size": 0}, "positive"),
        ({"global_batch_size": 2, "rank": 2, "world_size": 2}, "rank must be"),
        ({"global_batch_size": 2, "start_sample": -1}, "start at 0"),
    ):
        with pytest.raises(ValueError, match=message):
            Loader(dataset, seed=0, **wrong)


@pytest.mark.parametrize("count", [1, 2, 5, 64, 1000, 4097])
def test_a_computed_order_has_every_item_once_and_depends_on_the_seed(count):
    def order(seed):
        computed = ComputedPermutation(count, torch.Generator().manual_seed(seed))
        return [computed[position] for position in range(count)]

    assert sorted(order(0)) == list(range(count))
    assert order(0) == order(0)
    if count > 5:
        assert order(0) != order(1)
        assert order(0) != list(range(count))


def test_a_computed_order_is_as_good_as_a_shuffled_one():
    """Neighbours land anywhere: the mean distance of two is a third of all, as of random pairs."""
    count = 2**21
    assert isinstance(permutation(count, torch.Generator().manual_seed(0)), ComputedPermutation)
    assert isinstance(permutation(2**20, torch.Generator()), torch.Tensor)
    computed = permutation(count, torch.Generator().manual_seed(0))
    found = np.array([computed[position] for position in range(3000)])
    assert abs(np.abs(np.diff(found)).mean() / count - 1 / 3) < 0.02
    assert abs(found.mean() / count - 0.5) < 0.03
    assert len(set(found % 64)) == 64
