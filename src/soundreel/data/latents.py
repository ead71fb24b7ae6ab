"""Perceptual latents of a whole data set, computed once and kept on disk; and their statistics.

    cache.json                        format version, what made it, shapes, number of windows
    latents-000000.safetensors ...    `video`, `audio`, `label`, `start_frame`, and a CRC-32 of each
                                      row, its key included; keys in the metadata
    stats.safetensors                 mean and standard deviation of every channel
    moments.safetensors               mean and covariance of all elements, once asked for
    axes-HASH.safetensors             principal axes of one configuration, once asked for

Shards appear only when complete, so that an interrupted caching goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from soundreel.checkpoints.component import check_state
from soundreel.config_io import config_from_json, config_to_json
from soundreel.data.dataset import Sample
from soundreel.data.latent_axes import (
    LatentAxesConfig,
    LatentMoments,
    PerceptualAxes,
    latent_moments,
)
from soundreel.data.latent_files import (
    CACHE_FILE,
    LatentShards,
    damaged,
    load_tensors,
    save_tensors,
    shard_path,
    write_rows,
)
from soundreel.data.manifest import DataError
from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_checked_json, write_checked_json
from soundreel.types import AV, LatentSpec

FORMAT_VERSION = 1


@runtime_checkable
class Windows(Protocol):
    """Clips of equal length, such as a `PreparedDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class PerceptualStats(nn.Module):
    """Mean and standard deviation per channel of z_v and z_a; the identity until measured.

    The KL weights of the second stage leave the latents far from unit variance, but diffusion adds
    noise of unit variance: the generator works on standardised latents.
    """

    def __init__(self, latents: LatentSpec) -> None:
        super().__init__()
        self.config = latents
        for name, channels in (
            ("video", latents.video_channels),
            ("audio", latents.audio_channels),
        ):
            self.register_buffer(f"{name}_mean", torch.zeros(channels))
            self.register_buffer(f"{name}_std", torch.ones(channels))

    @classmethod
    def measured(cls, latents: LatentSpec, batches: Iterable[AV]) -> "PerceptualStats":
        """Return statistics of `batch channel height width` latents over batch and positions.

        Raises:
            SoundreelError: a channel never changes, so that it cannot be standardised.
        """
        stats = cls(latents)
        sums: dict[str, Tensor] = {}
        for batch in batches:
            for name in batch.present:
                values = batch[name].double().transpose(0, 1).flatten(1)  # c (b h w)
                count = values.new_full((values.shape[0],), values.shape[1])
                moments = torch.stack([count, values.sum(1), values.square().sum(1)])
                sums[name] = sums.get(name, torch.zeros_like(moments)) + moments
        for name, (count, total, squares) in sums.items():
            mean = total / count
            variance = squares / count - mean.square()
            constant = (variance <= 1e-12 * mean.square() + 1e-20).nonzero().flatten().tolist()
            if constant:
                raise SoundreelError(
                    f"channels {constant} of the {name} latents never change: train the stages "
                    "before this one longer, on more than one clip"
                )
            stats.get_buffer(f"{name}_mean").copy_(mean)
            stats.get_buffer(f"{name}_std").copy_(variance.sqrt())
        return stats

    def standardize(self, latents: AV) -> AV:
        """Zero mean and unit variance per channel; `... channel height width`."""
        return self._map(latents, lambda x, mean, std: (x - mean) / std)

    def noise(self, white: AV, signal_share: float = 0.0) -> AV:
        """Return noise for standardised latents: white, whatever share of it is theirs."""
        del signal_share
        return white

    def restore(self, latents: AV) -> AV:
        """Return inverse of `standardize`."""
        return self._map(latents, lambda x, mean, std: x * std + mean)

    def _map(self, latents: AV, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> AV:
        for name in latents.present:
            mean, std = (
                self.get_buffer(f"{name}_{kind}")[:, None, None].to(latents[name])
                for kind in ("mean", "std")
            )
            latents = latents.replace(name, function(latents[name], mean, std))
        return latents


LatentScaling = PerceptualStats | PerceptualAxes
"""Between an autoencoder's latents and what the generator sees: `standardize`, `restore`, and the
`noise` that goes with them."""


@dataclass(frozen=True, kw_only=True)
class LatentCacheInfo:
    """Contents of `cache.json`.

    Attributes:
        fingerprint: of the autoencoder and the data set; a cache is used for these only.
        num_windows: over all shards.
        shard_rows: windows in every shard but the last.
    """

    fingerprint: str
    latents: LatentSpec
    num_windows: int
    shard_rows: int

    def __post_init__(self) -> None:
        if self.num_windows < 0 or self.shard_rows < 1:
            raise DataError(
                f"num_windows and shard_rows count windows, got {self.num_windows} and "
                f"{self.shard_rows}"
            )


def cache_latents(
    encode: Callable[[AV], AV],
    windows: Windows,
    folder: Path,
    *,
    latents: LatentSpec,
    fingerprint: str,
    batch_size: int = 16,
    shard_rows: int = 1024,
    callback: Callable[[int, int], None] | None = None,
    rank: int = 0,
    world_size: int = 1,
    barrier: Callable[[], None] = lambda: None,
) -> "LatentDataset":
    """Encode every window once and measure the statistics; what is done already is kept.

    Args:
        encode: pixels and waveform, with a batch axis, to posterior means.
        fingerprint: see `LatentCacheInfo`.
        callback: `callback(num_done, num_windows)` after each batch.
        rank, world_size: this process encodes every `world_size`-th shard from the rank-th on; the
            first one measures the statistics.
        barrier: waits until all processes have come to it.

    Raises:
        DataError: the folder holds the latents of another autoencoder or data set.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    info = LatentCacheInfo(
        fingerprint=fingerprint, latents=latents, num_windows=len(windows), shard_rows=shard_rows
    )
    if (folder / CACHE_FILE).is_file():
        _check_same(_read_info(folder), info, folder)
    else:
        _write_info(folder, info)
    for shard in range(rank, -(-len(windows) // shard_rows), world_size):
        rows = range(shard * shard_rows, min((shard + 1) * shard_rows, len(windows)))
        path = shard_path(folder, shard)
        if not path.is_file():
            _write_shard(path, encode, windows, rows, batch_size, callback)
        elif callback is not None:
            callback(rows.stop, len(windows))
    barrier()
    if rank == 0 and not (folder / "stats.safetensors").is_file():
        _measure(folder, info)
    barrier()
    return LatentDataset(folder)


def _measure(folder: Path, info: LatentCacheInfo) -> None:
    """Write mean and standard deviation of every channel over all shards."""
    num_shards = -(-info.num_windows // info.shard_rows)
    shards = (_read_shard(shard_path(folder, shard)) for shard in range(num_shards))
    stats = PerceptualStats.measured(info.latents, shards)
    save_tensors(dict(stats.state_dict()), folder / "stats.safetensors")


class LatentDataset(Dataset):
    """Cached latents, standardised, as samples for the generator's training.

    `dataset[i]` is the i-th window; `dataset.draw(i, generator)` the same (nothing is random).

    Args:
        folder: made by `cache_latents`.
        standardize: False gives the raw latents (and `stats` is the identity).
        axes: how latents are scaled along their principal axes, of which at most one fewer are kept
            than there are latents; None standardises per channel.

    Raises:
        DataError: no complete cache.
        SoundreelError: principal axes of a single latent.
    """

    def __init__(
        self,
        folder: Path,
        *,
        standardize: bool = True,
        axes: LatentAxesConfig | None = None,
    ) -> None:
        folder = Path(folder)
        self.info = _read_info(folder)
        if not (folder / "stats.safetensors").is_file():
            raise DataError(f"{folder}: caching was interrupted; start it again to complete it")
        self._folder = folder
        self._shards = LatentShards(
            folder, len(self), self.info.shard_rows, latents=self.info.latents
        )
        self.stats: LatentScaling = PerceptualStats(self.info.latents)
        if standardize and axes is not None:
            self.stats = self._axes(axes.for_count(len(self)))
        elif standardize:
            _load_into(self.stats, folder / "stats.safetensors")

    def _axes(self, config: LatentAxesConfig) -> PerceptualAxes:
        """Return the mean and the spread, measured once."""
        about = json.dumps(config_to_json(config), sort_keys=True).encode()
        path = self._folder / f"axes-{hashlib.sha256(about).hexdigest()[:16]}.safetensors"
        if not path.is_file():
            measured = PerceptualAxes.measured(config, self.moments())
            save_tensors(dict(measured.state_dict()), path)
        axes = PerceptualAxes(config)
        _load_into(axes, path)
        return axes

    def moments(self) -> LatentMoments:
        """Return mean and covariance of all latents as they are cached; computed once."""
        path = self._folder / "moments.safetensors"
        if not path.is_file():
            save_tensors(latent_moments(map(_read_shard, self._shards.paths)), path)
        return load_tensors(path)

    def __len__(self) -> int:
        return self.info.num_windows

    def __getitem__(self, index: int) -> Sample:
        """Return latents `channel height width`, with label, key and start frame.

        Raises:
            DataError: they are damaged.
        """
        sample = self._shards.row(index)
        return replace(sample, av=self.stats.standardize(sample.av))

    def places(self) -> list[tuple[str, int]]:
        """Return key and start frame of every window; no latent is read."""
        return self._shards.places()

    def draw(self, index: int, generator: torch.Generator) -> Sample:
        """Return as `dataset[index]`: the loader's interface, which nothing random needs here."""
        del generator
        return self[index]


def _load_into(scaling: nn.Module, path: Path) -> None:
    tensors = load_tensors(path)
    check_state(scaling.state_dict(), tensors, str(path))
    scaling.load_state_dict(tensors)


def _write_shard(
    path: Path,
    encode: Callable[[AV], AV],
    windows: Windows,
    rows: range,
    batch_size: int,
    callback: Callable[[int, int], None] | None,
) -> None:
    parts, samples = [], []
    for first in range(rows.start, rows.stop, batch_size):
        batch = [windows[i] for i in range(first, min(first + batch_size, rows.stop))]
        av = batch[0].av.map(lambda *x: torch.stack(x), *(sample.av for sample in batch[1:]))
        parts.append(encode(av).map(lambda x: x.detach().float().cpu()))
        samples += [replace(sample, av=AV(None, None)) for sample in batch]
        if callback is not None:
            callback(first + len(batch), len(windows))
    write_rows(path, AV.cat(parts), samples)


def _read_shard(path: Path) -> AV:
    tensors = load_tensors(path)
    if not {"video", "audio"} <= tensors.keys():
        raise damaged(path)
    return AV(tensors["video"], tensors["audio"])


def _write_info(folder: Path, info: LatentCacheInfo) -> None:
    content = {"format_version": FORMAT_VERSION, **asdict(info)}
    write_checked_json(folder / CACHE_FILE, content)


def _read_info(folder: Path) -> LatentCacheInfo:
    path = folder / CACHE_FILE
    if not path.is_file():
        raise DataError(f"{folder}: no cached latents here (cache.json is missing)")
    value = read_checked_json(path, DataError)
    if not isinstance(value, dict) or value.pop("format_version", None) != FORMAT_VERSION:
        raise DataError(f"{path}: another format version; cache the latents again")
    return config_from_json(LatentCacheInfo, value, str(path), error=DataError)


def _check_same(found: LatentCacheInfo, wanted: LatentCacheInfo, folder: Path) -> None:
    if found != wanted:
        differing = [k for k, v in asdict(wanted).items() if asdict(found)[k] != v]
        raise DataError(
            f"{folder} holds latents of another autoencoder or data set ({', '.join(differing)} "
            "differ); use an empty folder, or remove this one"
        )
