"""The cache of joint_flow's latents: half precision, complete or resumable, damage noticed."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file

from soundreel.data.dataset import Sample
from soundreel.data.latent_files import verify_cache
from soundreel.data.manifest import DataError
from soundreel.systems.joint_flow.latents import CachedLatents, cache_latents
from soundreel.types import AV


class Windows:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        video = torch.arange(4.0).view(1, 1, 2, 2) + index
        av = AV(video, torch.full((1, 4), 0.5 * index))
        return Sample(av=av, label=index, key=f"clip{index}", start_frame=2 * index)


def make(folder):
    return cache_latents(lambda av: av, Windows(), folder, fingerprint="f", batch_size=2)


def rows(cached):
    return [(s.key, s.label, s.start_frame, *s.av) for s in (cached[i] for i in range(len(cached)))]


def same(one, two):
    return all(
        a[:3] == b[:3] and torch.equal(a[3], b[3]) and torch.equal(a[4], b[4])
        for a, b in zip(one, two, strict=True)
    )


def test_windows_and_their_mirror_images_are_kept(tmp_path):
    found = rows(make(tmp_path))
    assert [row[:3] for row in found] == [(f"clip{i}", i, 2 * i) for i in (0, 0, 1, 1, 2, 2)]
    assert torch.equal(found[3][3], found[2][3].flip(-1))
    assert found[1][3].dtype == torch.float32
    assert verify_cache(tmp_path) == 6


def test_processes_that_share_the_shards_make_what_one_makes(tmp_path, monkeypatch):
    monkeypatch.setattr("soundreel.systems.joint_flow.latents.SHARD_ROWS", 2)
    whole, barrier = rows(make(tmp_path / "one")), threading.Barrier(2, timeout=60)
    encoded = [0, 0]

    def part(rank):
        def encode(av):
            encoded[rank] += av.batch_size
            return av

        shared = {"rank": rank, "world_size": 2, "barrier": barrier.wait}
        return cache_latents(
            encode, Windows(), tmp_path / "two", fingerprint="f", batch_size=2, **shared
        )

    with ThreadPoolExecutor(2) as pool:
        assert all(same(rows(cached), whole) for cached in pool.map(part, range(2)))
    assert encoded == [4, 2]


def test_caches_of_older_releases_keep_loading(tmp_path):
    """They had first frames beside the keys, and no checksums."""
    expected = rows(make(tmp_path))
    path = tmp_path / "latents-000000.safetensors"
    tensors = {name: load_file(path)[name] for name in ("video", "audio", "label")}
    save_file(tensors, path, {"keys": json.dumps([(row[0], row[2]) for row in expected])})
    about = {"format_version": 1, "fingerprint": "f", "num_windows": 6}
    (tmp_path / "cache.json").write_text(json.dumps(about))
    assert same(rows(CachedLatents(tmp_path)), expected)
    assert same(rows(make(tmp_path)), expected)
    path.unlink()
    with pytest.raises(DataError, match="another order"):
        make(tmp_path)


def test_a_window_is_decoded_once_for_both_of_its_copies(tmp_path):
    class Counted(Windows):
        reads: ClassVar[list[int]] = []

        def __getitem__(self, index):
            self.reads.append(index)
            return super().__getitem__(index)

    cache_latents(lambda av: av, Counted(), tmp_path, fingerprint="f", batch_size=4)
    assert Counted.reads == [0, 1, 2]


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_cache_is_one_line_or_reads_as_it_was(tmp_path, seed, damaged):
    expected, random = rows(make(tmp_path)), Random(seed)
    path = tmp_path / random.choice(["cache.json", "latents-000000.safetensors"])
    path.write_bytes(damaged(path.read_bytes(), random))
    try:
        assert same(rows(CachedLatents(tmp_path)), expected)
    except DataError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017 - either is right
