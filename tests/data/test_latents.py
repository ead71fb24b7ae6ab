"""The latent cache: complete or resumable, made by one autoencoder, standardised per channel."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random

import pytest
import torch

from soundreel.data import latent_files
from soundreel.data.dataset import Sample
from soundreel.data.latent_axes import LatentAxesConfig
from soundreel.data.latents import LatentDataset, PerceptualStats, cache_latents
from soundreel.data.loader import Loader
from soundreel.data.manifest import DataError
from soundreel.errors import SoundreelError
from soundreel.types import AV, LatentSpec

LATENTS = LatentSpec(video_channels=3, video_size=4, audio_channels=2, audio_size=2)


class Windows:
    """Seven windows of two clips, each filled with its own number."""

    def __len__(self):
        return 7

    def __getitem__(self, index):
        fill = torch.full((2, 3, 8, 8), index / 10)
        av = AV(fill, torch.full((1, 20), -index / 10))
        return Sample(av=av, label=index % 2, key=f"clip{index // 4}", start_frame=index % 4)


class Encoder:
    """Fixed random projections of a window's number; counts how many windows it has seen."""

    def __init__(self):
        self.seen = 0
        generator = torch.Generator().manual_seed(0)
        self.video = torch.randn(LATENTS.video_shape, generator=generator)
        self.audio = torch.randn(LATENTS.audio_shape, generator=generator)

    def __call__(self, av):
        self.seen += av.batch_size
        number = av["video"][:, 0, 0, 0, 0] * 10
        return AV(
            5 + number[:, None, None, None] * self.video,
            -3 + number[:, None, None, None] * self.audio,
        )


def make(folder, encode=None, **options):
    settings = {"fingerprint": "a", "batch_size": 2, "shard_rows": 3} | options
    return cache_latents(encode or Encoder(), Windows(), folder, latents=LATENTS, **settings)


def test_every_window_is_kept_in_order_with_its_label_key_and_start(tmp_path):
    make(tmp_path)
    raw, encode = LatentDataset(tmp_path, standardize=False), Encoder()
    assert len(raw) == 7
    for index in range(7):
        sample, window = raw[index], Windows()[index]
        expected = encode(window.av.map(lambda x: x[None]))
        assert torch.equal(sample.av["video"], expected["video"][0])
        assert torch.equal(sample.av["audio"], expected["audio"][0])
        assert (sample.label, sample.key, sample.start_frame) == (
            window.label,
            window.key,
            window.start_frame,
        )


def test_standardised_latents_have_zero_mean_and_unit_variance_per_channel(tmp_path):
    dataset = make(tmp_path)
    latents = torch.stack([dataset[i].av["video"] for i in range(7)])
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(latents.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-4)


def test_principal_axes_have_unit_variance_and_are_measured_once(tmp_path):
    make(tmp_path)
    axes = LatentAxesConfig(latents=LATENTS, num_axes=64, whitening=0.0)
    dataset = LatentDataset(tmp_path, axes=axes)
    assert dataset.stats.config.num_axes == len(dataset) - 1  # no more than the latents span
    latents = torch.stack([dataset[i].av["video"] for i in range(7)])
    assert float(latents.var(dim=0, correction=0).mean()) == pytest.approx(1, abs=1e-3)
    raw = LatentDataset(tmp_path, standardize=False)[3].av
    assert torch.allclose(dataset.stats.restore(dataset[3].av)["video"], raw["video"], atol=1e-4)
    names = ["moments.safetensors", *(path.name for path in tmp_path.glob("axes-*"))]
    assert len(names) == 2
    stamps = [(tmp_path / name).stat().st_mtime_ns for name in names]
    again = LatentDataset(tmp_path, axes=axes).stats.state_dict()
    assert all(torch.equal(again[key], value) for key, value in dataset.stats.state_dict().items())
    assert LatentDataset(tmp_path, axes=replace(axes, num_axes=2)).stats.config.num_axes == 2
    assert [(tmp_path / name).stat().st_mtime_ns for name in names] == stamps


def test_restoring_undoes_standardising():
    generator = torch.Generator().manual_seed(0)
    latents = AV(
        4 + 3 * torch.randn(5, *LATENTS.video_shape, generator=generator),
        0.1 * torch.randn(5, *LATENTS.audio_shape, generator=generator) - 2,
    )
    stats = PerceptualStats.measured(
        LATENTS, [latents.rows(slice(0, 2)), latents.rows(slice(2, 5))]
    )
    back = stats.restore(stats.standardize(latents))
    assert torch.allclose(back["video"], latents["video"], atol=1e-5)
    assert torch.allclose(back["audio"], latents["audio"], atol=1e-5)
    alone = stats.standardize(AV(None, latents.audio))
    assert torch.equal(alone["audio"], stats.standardize(latents)["audio"])


def test_unmeasured_statistics_are_the_identity():
    latents = AV(torch.rand(1, *LATENTS.video_shape), torch.rand(1, *LATENTS.audio_shape))
    assert torch.equal(PerceptualStats(LATENTS).standardize(latents)["video"], latents["video"])


def test_a_channel_that_never_changes_is_reported():
    flat = AV(torch.ones(2, *LATENTS.video_shape), torch.ones(2, *LATENTS.audio_shape))
    with pytest.raises(ValueError, match=r"channels \[0, 1, 2\] of the video latents never change"):
        PerceptualStats.measured(LATENTS, [flat])


def test_interrupted_caching_goes_on_and_equals_an_uninterrupted_one(tmp_path):
    class StopError(Exception):
        pass

    def stop_after_five(done, total):
        assert total == 7
        if done >= 5:
            raise StopError

    with pytest.raises(StopError):
        make(tmp_path / "cut", callback=stop_after_five)
    with pytest.raises(DataError, match="interrupted"):
        LatentDataset(tmp_path / "cut")
    encode = Encoder()
    resumed, whole = make(tmp_path / "cut", encode), make(tmp_path / "whole")
    assert encode.seen == 4  # the first shard of three was kept
    for index in range(7):
        assert torch.equal(resumed[index].av["audio"], whole[index].av["audio"])
    assert not [p for p in (tmp_path / "cut").iterdir() if p.name.startswith(".")]


def test_processes_that_share_the_shards_make_what_one_makes(tmp_path):
    whole, encoders = make(tmp_path / "one"), [Encoder(), Encoder()]
    barrier = threading.Barrier(2, timeout=60)

    def part(rank):
        shared = {"rank": rank, "world_size": 2, "barrier": barrier.wait}
        return make(tmp_path / "two", encoders[rank], **shared)

    with ThreadPoolExecutor(2) as pool:
        joined = list(pool.map(part, range(2)))
    assert [encoder.seen for encoder in encoders] == [4, 3]  # shards of 3, 3 and 1 windows
    for index in range(7):
        for one in joined:
            assert one[index].key == whole[index].key
            assert torch.equal(one[index].av["video"], whole[index].av["video"])
            assert torch.equal(one[index].av["audio"], whole[index].av["audio"])


def test_few_shards_are_open_at_once(tmp_path, monkeypatch):
    make(tmp_path, shard_rows=1)
    monkeypatch.setattr(latent_files, "MOST_OPEN", 2)
    latents = LatentDataset(tmp_path)
    for index in (0, 6, 3, 0, 5, 3):
        assert latents[index].start_frame == index % 4
        assert len(latents._shards._opened) <= 2


def test_latents_of_another_autoencoder_are_refused(tmp_path):
    make(tmp_path)
    with pytest.raises(DataError, match="fingerprint differ"):
        make(tmp_path, fingerprint="b")


def test_a_folder_without_cache_is_refused(tmp_path):
    with pytest.raises(DataError, match="no cached latents"):
        LatentDataset(tmp_path)


def test_the_loader_batches_cached_latents(tmp_path):
    dataset = make(tmp_path)
    batch = next(iter(Loader(dataset, global_batch_size=3, seed=0, shuffle=False)))
    assert batch.av["video"].shape == (3, *LATENTS.video_shape)
    assert torch.equal(batch.av["audio"][2], dataset[2].av["audio"])
    assert batch.label.tolist() == [0, 1, 0]
    assert batch.keys == ("clip0",) * 3


@pytest.mark.parametrize("seed", range(80))
def test_a_damaged_cache_is_one_line_or_reads_as_it_was(tmp_path, seed, damaged):
    make(tmp_path)
    whole = LatentDataset(tmp_path)
    expected = [whole[index] for index in range(7)]
    random = Random(seed)
    path = random.choice(sorted(tmp_path.iterdir()))
    path.write_bytes(damaged(path.read_bytes(), random))
    num_right = 0
    try:
        dataset = LatentDataset(tmp_path)
        for index in range(7):
            sample = dataset[index]
            assert (sample.key, sample.label) == (expected[index].key, expected[index].label)
            assert torch.equal(sample.av["video"], expected[index].av["video"])
            assert torch.equal(sample.av["audio"], expected[index].av["audio"])
            num_right += 1
    except SoundreelError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017 - or all is right
    else:
        assert num_right == 7


def test_a_row_that_changed_is_named_and_the_others_are_read(tmp_path):
    make(tmp_path)
    path = tmp_path / "latents-000001.safetensors"
    raw = LatentDataset(tmp_path, standardize=False)
    row = raw[4].av["video"].numpy().tobytes()
    content = path.read_bytes()
    place = content.index(row)
    path.write_bytes(content[:place] + bytes([row[0] ^ 1]) + content[place + 1 :])
    dataset = LatentDataset(tmp_path)
    assert dataset[3].key == "clip0"
    with pytest.raises(DataError, match=r"latents-000001\.safetensors: row 1, clip clip1, damaged"):
        dataset[4]
    (tmp_path / "stats.safetensors").unlink()
    with pytest.raises(DataError, match=r"latents-000001\.safetensors: damaged since"):
        make(tmp_path)
