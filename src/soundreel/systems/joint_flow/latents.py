"""Latents of a data set, computed once, in half precision; and what is measured on them.

    cache.json                     what made it, and how many windows there are
    latents-000000.safetensors ... rows of `data.latent_files`, with checksums

Shards appear whole, so that an interrupted caching goes on where it stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from soundreel.data.dataset import Sample
from soundreel.data.latent_files import CACHE_FILE, LatentShards, shard_path, write_rows
from soundreel.data.latents import Windows
from soundreel.data.manifest import DataError
from soundreel.errors import SoundreelError
from soundreel.json_yaml import read_checked_json, write_checked_json
from soundreel.systems.joint_flow.audio_codec import AudioCodec
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.transformer import MODALITIES, JointTransformer
from soundreel.systems.joint_flow.video_encoder import VideoEncoder
from soundreel.types import AV

FORMAT_VERSION = 2
"""Version 1 had all mirrored windows after all others."""
VERSIONS = (1, FORMAT_VERSION)
SHARD_ROWS = 512
AVERAGE_WINDOWS = 32
"""Average windows of all classes that count towards each class's mean and deviation."""
MIN_DEVIATION = 0.02
"""Smallest deviation of a scaled latent number, also of one that never changes."""
MAX_CORRELATION = 0.98
"""Largest correlation of noise from one group to the next; a channel that never changes still gets
some fresh noise."""


def encode_inner(av: AV, encoder: VideoEncoder, codec: AudioCodec) -> AV:
    """Return the latents of every whole group: video under whole windows, sound around them.

    Group g lies around the border between hops g and g + 1 of the frames given: its window is these
    two hops, its sound the half hop on either side of the border.

    Args:
        av: `batch frame channel height width` in hops of four frames, and the sound of the same
            time, `batch channel sample`.

    Returns:
        `batch group token dim` each, one group fewer than hops.
    """
    return AV(encoder.encode(av["video"]), encode_audio(av["audio"], codec))


def encode_audio(
    waveform: Float[Tensor, "batch channel sample"], codec: AudioCodec
) -> Float[Tensor, "batch group token dim"]:
    """Return the latents of sound in groups of a hop, without half a hop at either end."""
    latents = codec.encode(waveform.mean(1))[:, HOP // 2 : -(HOP // 2)]
    return rearrange(latents, "b (group token) dim -> b group token dim", token=HOP)


def cache_latents(
    encode: Callable[[AV], AV],
    windows: Windows,
    folder: Path,
    *,
    fingerprint: str,
    mirrored: bool = True,
    batch_size: int = 8,
    callback: Callable[[int, int], None] | None = None,
    rank: int = 0,
    world_size: int = 1,
    barrier: Callable[[], None] = lambda: None,
) -> "CachedLatents":
    """Encode every window once; what is done already is kept.

    Args:
        fingerprint: of the networks and the data set; a cache is used for these only.
        mirrored: encode each window mirrored left to right as well, right after it.
        callback: `callback(num_done, num_all)` after each batch.
        rank, world_size: this process encodes every `world_size`-th shard from the rank-th on.
        barrier: waits until all processes have come to it.

    Raises:
        DataError: the folder holds the latents of other networks or another data set.
    """
    copies = 2 if mirrored else 1
    count = len(windows) * copies
    paths = [shard_path(folder, shard) for shard in range(-(-count // SHARD_ROWS))]
    _begin(folder, fingerprint, count, paths)
    for shard, path in list(enumerate(paths))[rank::world_size]:
        rows = range(shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, count))
        if not path.is_file():
            _write_shard(path, encode, windows, rows, copies, batch_size, callback)
        elif callback is not None:
            callback(rows.stop, count)
    barrier()
    return CachedLatents(folder)


def _begin(folder: Path, fingerprint: str, count: int, paths: Sequence[Path]) -> None:
    """Say what the folder is for; refuse one that is for something else."""
    about = {"format_version": FORMAT_VERSION, "fingerprint": fingerprint, "num_windows": count}
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / CACHE_FILE).is_file():
        write_checked_json(folder / CACHE_FILE, about)
    found = _about(folder)
    if found | {"format_version": FORMAT_VERSION} != about:
        raise DataError(
            f"{folder} holds latents of other networks or another data set; use an empty folder, or"
            " remove this one"
        )
    if found != about and not all(path.is_file() for path in paths):
        raise DataError(
            f"{folder}: caching was begun by an older release, in another order; remove it"
        )


class CachedLatents(Dataset):
    """Cached latents as samples to draw; nothing about them is random.

    Raises:
        DataError: no complete cache.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self._labels: Sequence[int] = ()
        self._count = int(_about(self._folder)["num_windows"])
        self._shards = LatentShards(self._folder, self._count, SHARD_ROWS)
        if not all(path.is_file() for path in self._shards.paths):
            raise DataError(f"{folder}: caching was interrupted; start it again to complete it")

    def __len__(self) -> int:
        return self._count

    def labelled(self, labels: Sequence[int]) -> "CachedLatents":
        """Give each class of the data set the label at its place; returns the latents."""
        self._labels = labels
        return self

    def __getitem__(self, index: int) -> Sample:
        """Return latents `group token dim` in single precision, as the codecs gave them.

        Raises:
            DataError: they are damaged.
        """
        sample = self._shards.row(index)
        label = self._labels[sample.label] if self._labels and sample.label >= 0 else sample.label
        return replace(sample, av=sample.av.map(Tensor.float), label=label)

    def draw(self, index: int, generator: torch.Generator) -> Sample:
        """Return `dataset[index]`: the loader's interface, which nothing random needs here."""
        del generator
        return self[index]

    def rows(self, indices: list[int]) -> tuple[AV, Tensor]:
        """Return latents with a batch axis, and labels."""
        samples = [self[index] for index in indices]
        av = samples[0].av.map(lambda *x: torch.stack(x), *(sample.av for sample in samples[1:]))
        return av, torch.tensor([sample.label for sample in samples])


@torch.no_grad()
def measure(transformer: JointTransformer, latents: CachedLatents) -> None:
    """Set a transformer's scales from the latents that it is going to learn.

    Raises:
        SoundreelError: an audio channel never changes.
    """
    num_classes = transformer.config.num_classes
    sums: dict[str, Tensor] = {}
    for first in range(0, len(latents), SHARD_ROWS):
        av, label = latents.rows(list(range(first, min(first + SHARD_ROWS, len(latents)))))
        label = torch.where(label < 0, num_classes, label)
        for modality in MODALITIES:
            moments = _moments(av[modality].double())
            by_class = moments.new_zeros(num_classes + 1, *moments.shape[1:])
            by_class.index_add_(0, label, moments)
            sums[modality] = sums.get(modality, torch.zeros_like(by_class)) + by_class
    whole = {modality: of.sum(0) for modality, of in sums.items()}
    for modality in MODALITIES:
        correlation = _correlation(whole[modality])
        transformer.get_buffer(f"{modality}_correlation").copy_(correlation)
    mean, variance = _mean_and_variance(whole["audio"].sum(1))
    if bool((variance <= 1e-8).any()):
        still = (variance <= 1e-8).nonzero().flatten().tolist()
        raise SoundreelError(
            f"audio latent channels {still} never change; is there sound in the data?"
        )
    transformer.get_buffer("audio_mean").copy_(mean)
    transformer.get_buffer("audio_std").copy_(variance.sqrt())
    for modality in MODALITIES:
        # As if that many average windows had been seen of each class besides its own.
        of_class = sums[modality] + whole[modality] * (AVERAGE_WINDOWS / len(latents))
        of_class[-1] = whole[modality]
        mean, variance = _mean_and_variance(of_class.transpose(0, 1))
        deviation = variance.clamp(min=0).sqrt()
        if modality == "audio":
            mean = (mean - transformer.get_buffer("audio_mean")) / transformer.get_buffer(
                "audio_std"
            )
            deviation = deviation / transformer.get_buffer("audio_std")
        transformer.get_buffer(f"{modality}_class_mean").copy_(mean)
        transformer.get_buffer(f"{modality}_class_deviation").copy_(
            deviation.clamp(min=MIN_DEVIATION)
        )


def _moments(x: Float[Tensor, "batch group token dim"]) -> Float[Tensor, "batch seven token dim"]:
    """Return of each clip: number of groups, sum, squares; pairs of neighbours, and their ends."""
    ones = torch.ones_like(x[:, 0])
    return torch.stack(
        [
            ones * x.shape[1],
            x.sum(1),
            x.square().sum(1),
            ones * (x.shape[1] - 1),
            (x[:, 1:] * x[:, :-1]).sum(1),
            x[:, 1:].sum(1),
            x[:, :-1].sum(1),
        ],
        dim=1,
    )


def _mean_and_variance(moments: Float[Tensor, "seven *axes"]) -> tuple[Tensor, Tensor]:
    mean = moments[1] / moments[0]
    return mean, moments[2] / moments[0] - mean.square()


def _correlation(moments: Float[Tensor, "seven *axes"]) -> Tensor:
    pairs, products, later, earlier = moments[3:].unbind(0)
    mean, variance = _mean_and_variance(moments)
    covariance = (products - mean * (later + earlier)) / pairs.clamp(min=1) + mean.square()
    ratio = torch.where(variance > 0, covariance / variance.clamp(min=1e-12), 0.0)
    return ratio.clamp(0.0, MAX_CORRELATION)


def _write_shard(
    path: Path,
    encode: Callable[[AV], AV],
    windows: Windows,
    rows: range,
    copies: int,
    batch_size: int,
    callback: Callable[[int, int], None] | None,
) -> None:
    parts, samples = [], []
    for first in range(rows.start, rows.stop, batch_size):
        numbers = range(first, min(first + batch_size, rows.stop))
        batch = list(_rows(windows, numbers, copies))
        av = batch[0].av.map(lambda *x: torch.stack(x), *(sample.av for sample in batch[1:]))
        parts.append(encode(av).map(lambda x: x.detach().half().cpu()))
        samples += [replace(sample, av=AV(None, None)) for sample in batch]
        if callback is not None:
            callback(numbers.stop, rows.stop)
    write_rows(path, AV.cat(parts), samples)


def _rows(windows: Windows, numbers: range, copies: int) -> Iterator[Sample]:
    """Yield windows by number, each decoded once; of two copies the second is mirrored."""
    sample, last = None, -1
    for number in numbers:
        index, copy = divmod(number, copies)
        if sample is None or index != last:
            sample, last = windows[index], index
        flipped = sample.av["video"].flip(-1) if copy else sample.av["video"]
        yield replace(sample, av=sample.av.replace("video", flipped))


def _about(folder: Path) -> dict[str, Any]:
    path = folder / CACHE_FILE
    if not path.is_file():
        raise DataError(f"{folder}: no cached latents here (cache.json is missing)")
    value = read_checked_json(path, DataError)
    names = {"format_version", "fingerprint", "num_windows"}
    if not isinstance(value, dict) or value.get("format_version") not in VERSIONS:
        raise DataError(f"{path}: another format version; cache the latents again")
    if value.keys() != names or type(value["num_windows"]) is not int or value["num_windows"] < 1:
        raise DataError(f"{path}: damaged; remove {folder} to make it again")
    return value
