"""What all stages of an MM-LDM run share: seeded networks, players, loading, fitting, leaving."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from soundreel.audio.mel_image import MelImageConfig
from soundreel.checkpoints.store import (
    ModelIndex,
    save_model_index,
    save_state,
    writing_folder,
)
from soundreel.data.dataset import PreparedDataset
from soundreel.data.loader import Batch, Drawable, Loader
from soundreel.diffusion.noise import derived_seed
from soundreel.nn.layout import to_channels_last
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.signals import first_stage_moments
from soundreel.training.loop import TrainConfig, fit
from soundreel.training.meters import Tracker
from soundreel.training.objectives import Objective
from soundreel.training.player import Player, make_player
from soundreel.training.state import list_checkpoints, load_training_state
from soundreel.training.trackers import JsonLines
from soundreel.types import AV

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Trained(Generic[Network]):
    """The main network of a stage as it learns, and how to make it anew."""

    player: Player
    build: Callable[[], Network]

    def averaged(self) -> Network:
        """A copy with the averaged weights, or the current ones without an average."""
        network = self.build().to(self.player.device)
        network.load_state_dict((self.player.ema or self.player.network).state_dict())
        return network.eval()


class StageTools:
    """Trains the networks of one stage after the other in the folders of a run.

    Args:
        out: folder of the run; each stage has a folder of its name in it.
        num_workers: processes that read data ahead.
        trackers: makes further receivers of a stage's logged numbers.
    """

    def __init__(self, out: Path, num_workers: int, trackers: Callable[[], list[Tracker]]) -> None:
        self._out = out
        self._num_workers = num_workers
        self._trackers = trackers
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def seeded(self, build: Callable[[], Network], train: TrainConfig) -> Network:
        """A new network whose initial weights follow from the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(derived_seed(train.seed))
            return to_channels_last(build()).to(self.device)

    def player(
        self,
        name: str,
        network: nn.Module,
        objective: Objective,
        train: TrainConfig,
        *,
        ema: bool = True,
        rate_shares: Mapping[str, float] | None = None,
    ) -> Player:
        """AdamW as the stage asks for; adversaries go without an average."""
        return make_player(
            name,
            network,
            objective,
            learning_rate=train.learning_rate,
            weight_decay=train.weight_decay,
            ema_decay=train.ema_decay if ema else 0.0,
            rate_shares=rate_shares,
        )

    def loader(self, dataset: Drawable) -> Callable[[TrainConfig, int], Iterator[Batch]]:
        """Endless batches on the device, from any sample on."""

        def start(train: TrainConfig, samples_seen: int) -> Iterator[Batch]:
            loader = Loader(
                dataset,
                global_batch_size=train.micro_batch_size,
                seed=train.seed,
                start_sample=samples_seen,
                num_workers=self._num_workers,
            )
            return map(self._batch_on_device, loader)

        return start

    def _batch_on_device(self, batch: Batch) -> Batch:
        av = batch.av.to(self.device, non_blocking=True)
        return replace(batch, av=av, label=batch.label.to(self.device))

    def on_device(self, encode: Callable[[AV], AV]) -> Callable[[AV], AV]:
        """An encoder that takes pairs from anywhere."""
        return lambda av: encode(av.to(self.device))

    def fit(
        self,
        stage: str,
        players: list[Player],
        loader: Callable[[TrainConfig, int], Iterator[Batch]],
        train: TrainConfig,
        preview: Callable[[int], None],
    ) -> bool:
        """Train from the newest checkpoint on; False if it was told to stop before the end."""
        folder = self._out / stage
        newest = list_checkpoints(folder / "checkpoints")[-1:]
        seen = load_training_state(newest[0], players) if newest else 0
        folder.mkdir(parents=True, exist_ok=True)
        seen = fit(
            players,
            loader(train, seen),
            train,
            checkpoints=folder / "checkpoints",
            samples_seen=seen,
            trackers=[JsonLines(folder / "log.jsonl", seen), *self._trackers()],
            preview=preview,
        )
        return seen >= train.total_samples

    def leave(self, stage: str, network: nn.Module, config: Any) -> None:
        """Mark a stage as finished by its network."""
        with writing_folder(self._out / stage / "component") as temporary:
            save_state(temporary, "network", network.state_dict(), config)
            index = ModelIndex(system="mm-ldm", components={"network": stage})
            save_model_index(temporary, index)


@torch.no_grad()
def unit_scale(network: KLVAE, windows: PreparedDataset, mel: MelImageConfig) -> float:
    """The factor that gives the latents of frames and mel images unit standard deviation.

    Frames count as much as mel images, however many there are of either; 64 windows are measured.
    """
    every = max(1, len(windows) // 64)
    device = next(network.parameters()).device
    moments = AV.cat(
        [
            first_stage_moments(windows[i].av.map(lambda x: x[None]).to(device), network, mel)
            for i in range(0, len(windows), every)
        ]
    )
    channels = network.config.latent_channels
    video = moments["video"].unflatten(1, (-1, 2 * channels))[:, :, :channels]
    audio = moments["audio"][:, :channels]
    return float((0.5 * (video.var() + audio.var())).rsqrt())


def fingerprint(
    networks: Sequence[nn.Module], about: dict[str, Any], skip: Sequence[str] = ()
) -> str:
    """A number of networks and of the data they were used on; caches serve these only.

    Args:
        skip: children of the networks that what is cached does not depend on.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            if name.partition(".")[0] in skip:
                continue
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
