"""One training run: its folder, processes and stop request, and what every stage is built with."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from soundreel.checkpoints.adapter import save_lora
from soundreel.checkpoints.lora import adapted, add_lora, merge_lora
from soundreel.checkpoints.store import ModelIndex, save_model_index, save_state, writing_folder
from soundreel.config_io import ConfigError
from soundreel.data.loader import Batch, Drawable, Loader
from soundreel.diffusion.noise import derived_seed
from soundreel.nn.layout import recompute_activations, to_channels_last
from soundreel.protocols import LiveTracker, Stage, Tracker
from soundreel.training.init import Conversion, InitialModel
from soundreel.training.loop import TrainConfig, fit
from soundreel.training.objectives import Objective, TrainingBatch
from soundreel.training.parallel import Parallel
from soundreel.training.signals import StopRequest
from soundreel.training.state import list_checkpoints, load_training_state
from soundreel.training.step import batch_on_device
from soundreel.training.trackers import JsonLines
from soundreel.training.trainee import Trainee, make_trainee
from soundreel.types import AV

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)
COMPONENT = "network"


class StoppedError(Exception):
    """The run was told to stop between two optimizer steps, where there is nothing to save."""


@dataclass(frozen=True, kw_only=True)
class StageWork(Generic[Network]):
    """Networks and data of a stage, made when its turn comes.

    Attributes:
        trainees: networks that learn in turn from each batch. The first is what the stage is for;
            the others, adversaries, are forgotten when it ends.
        build: makes the first one's network anew, for a copy with the averaged weights.
        data: windows to draw batches from.
        train: how to train.
        adapt: makes of the loader's batches what the objectives read; None leaves them as they are.
        preview: shows something of the averaged network at so many samples; None shows nothing.
        finish: uses the averaged network at the end of the stage, after so many samples seen. The
            configuration it returns is stored with the network as the stage's component.
    """

    trainees: list[Trainee]
    build: Callable[[], Network]
    data: Drawable
    train: TrainConfig
    finish: Callable[[Network, int], Any]
    adapt: Callable[[Iterator[Batch]], Iterator[TrainingBatch]] | None = None
    preview: Callable[[Network, int], None] | None = None

    def state(self, *, is_main: bool = True) -> dict[str, Tensor]:
        """Return the averaged weights, or the current ones without an average.

        Of a divided network all processes must ask together; the main one alone gets them, whole.
        """
        trainee = self.trainees[0]
        state = (trainee.ema or trainee.network).state_dict()
        if not trainee.sharded:
            return state
        from soundreel.training.sharding import gathered

        return gathered(state, keep=is_main)

    def averaged(self, state: Mapping[str, Tensor]) -> Network:
        """Return a new network with the weights that `state` has given."""
        trainee = self.trainees[0]
        network = self.build().to(trainee.device)
        add_lora(network, self.train.lora, adapted(trainee.network))
        network.load_state_dict(state)
        merge_lora(network)
        return network.eval()


class Run:
    """A run while it is under way.

    Args:
        out: its folder.
        system: name of the system, for the components that stages leave.
        num_workers: processes that read data ahead.
        trackers: makes further receivers of a stage's logged numbers.
        device: where its networks and batches lie.
        init: earlier model that networks start from.
        precisions: of the stages by name, where their configuration leaves it open.
    """

    def __init__(
        self,
        out: Path,
        *,
        system: str,
        num_workers: int,
        parallel: Parallel,
        stop: StopRequest,
        trackers: Callable[[], list[Tracker]],
        device: torch.device,
        init: InitialModel | None = None,
        precisions: Mapping[str, str] | None = None,
    ) -> None:
        self.out = out
        self.init = init
        self.parallel = parallel
        self.device = device
        self._system = system
        self._num_workers = num_workers
        self._stop = stop
        self._trackers = trackers
        self._precisions = precisions or {}
        self._shown: list[Tracker] = []  # of the stage that is under way

    def folder(self, stage: Stage) -> Path:
        """Return where a stage's log, checkpoints and previews lie."""
        return self.out / stage.folder

    def component(self, name: str) -> Path:
        """Return the folder of the network that the stage `name` has left."""
        return self.out / name / "component"

    def is_finished(self, stage: Stage) -> bool:
        """Tell whether a stage has left its network, or needs no training."""
        if stage.total_samples == 0:
            return True
        return bool(stage.folder) and (self.component(stage.name) / "model_index.json").is_file()

    def seeded(
        self,
        build: Callable[[], Network],
        train: TrainConfig,
        *,
        component: str = "",
        channels_last: bool = True,
        convert: Conversion | None = None,
    ) -> Network:
        """Return a new network on the device whose initial weights follow from the seed.

        Args:
            component, convert: see `InitialModel.load_into`; without `init` nothing is loaded.
        """
        with torch.random.fork_rng():
            torch.manual_seed(derived_seed(train.seed))
            network = build()
        if self.init is not None and component:
            adapts = bool(train.lora.rank)
            self.init.load_into(network, component, convert=convert, is_adapted=adapts)
        return (to_channels_last(network) if channels_last else network).to(self.device)

    def trainee(
        self,
        name: str,
        network: nn.Module,
        objective: Objective,
        train: TrainConfig,
        *,
        rate_shares: Mapping[str, float] | None = None,
    ) -> Trainee:
        """Return the main network of a stage with optimizer and average as `train` asks for.

        Raises:
            ConfigError: activations are to be recomputed, which the network cannot.
        """
        if train.checkpoint_activations and not recompute_activations(network):
            raise ConfigError(
                f"train.checkpoint_activations: {name} cannot recompute its activations; "
                "set it to False"
            )
        add_lora(network, train.lora, seed=derived_seed(train.seed))
        sharded = train.sharding and self.parallel.world_size > 1
        if sharded:
            from soundreel.training.sharding import shard

            shard(network, self.device)
        return make_trainee(
            name,
            network,
            objective,
            learning_rate=train.learning_rate,
            weight_decay=train.weight_decay,
            ema_decay=train.ema_decay,
            rate_shares=rate_shares,
            muon=train.optimizer == "muon",
            sharded=sharded,
        )

    def adversary(
        self, name: str, network: nn.Module, objective: Objective, train: TrainConfig
    ) -> Trainee:
        """Return a network that learns against the main one; it keeps no average."""
        rates = {"learning_rate": train.learning_rate, "weight_decay": train.weight_decay}
        return make_trainee(name, network, objective, **rates)

    def on_device(self, encode: Callable[[AV], AV]) -> Callable[[AV], AV]:
        """Return an encoder that takes pairs from anywhere."""
        return lambda av: encode(av.to(self.device))

    def begin(self, stage: Stage, train: TrainConfig, place: str) -> None:
        """Write the heading of a stage, before what prepares it; `place` is its number."""
        if self.parallel.is_main:
            precision = self._precisions.get(stage.name, train.precision)
            work = f"{train.total_samples:,} clips, {train.global_batch_size} at a time"
            logger.info("%s%s: %s, %s on %s", place, stage.name, work, precision, self.device)
            self._shown = self._trackers()

    def fit(self, stage: Stage, work: StageWork[Any]) -> int:
        """Train a stage from its newest checkpoint on; return the samples seen."""
        folder = self.folder(stage)
        newest = list_checkpoints(folder / "checkpoints")[-1:]
        seen = load_training_state(newest[0], work.trainees) if newest else 0
        trackers: list[Tracker] = []
        if self.parallel.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            trackers = [JsonLines(folder / "log.jsonl", seen), *self._shown]
        show = work.preview

        def preview(samples: int) -> None:
            if show is None:
                return
            state = work.state(is_main=self.parallel.is_main)
            if self.parallel.is_main:
                show(work.averaged(state), samples)

        precision = self._precisions.get(stage.name, work.train.precision)
        if self.parallel.is_main and seen:
            logger.info("goes on after %s clips", f"{seen:,}")
        return fit(
            work.trainees,
            self._batches(work, seen),
            replace(work.train, precision=precision),
            checkpoints=folder / "checkpoints",
            samples_seen=seen,
            trackers=trackers,
            preview=preview,
            parallel=self.parallel,
            stop=self._stop,
        )

    def store(self, stage: Stage, work: StageWork[Any], samples_seen: int) -> None:
        """Store what a stage was for; a component folder marks the stage as finished.

        All processes must come here together; the main one writes.
        """
        state = work.state(is_main=self.parallel.is_main)
        if not self.parallel.is_main:
            return
        network = work.averaged(state)
        if work.train.lora.rank and self.init is not None:
            trained, where = work.trainees[0].network, self.folder(stage) / "adapter"
            lora, origin = work.train.lora, self.init.source
            save_lora(trained, state, lora, where, component=stage.component, model=origin)
        config = work.finish(network, samples_seen)
        if config is None:
            return
        with writing_folder(self.component(stage.name)) as temporary:
            save_state(temporary, COMPONENT, network.state_dict(), config)
            index = ModelIndex(system=self._system, components={COMPONENT: stage.name})
            save_model_index(temporary, index)

    def must_stop(self) -> bool:
        """Tell whether any process was told to stop; all processes must ask together."""
        return self.parallel.any(self._stop.requested, self.device)

    def raise_if_stopped(self, *progress: int) -> None:
        """Raise `StoppedError` after a stop request; serves as a callback of long preparations.

        With several processes it waits for their next common step. `progress` is done and total.
        """
        for tracker in self._shown if len(progress) == 2 else ():
            if isinstance(tracker, LiveTracker):
                tracker.step(*progress)
        if self._stop.requested and self.parallel.world_size == 1:
            raise StoppedError

    def _batches(self, work: StageWork[Any], samples_seen: int) -> Iterator[TrainingBatch]:
        """Return this process's endless batches on the device, from a sample on."""
        loader = iter(
            Loader(
                work.data,
                global_batch_size=work.train.micro_batch_size * self.parallel.world_size,
                seed=work.train.seed,
                start_sample=samples_seen,
                rank=self.parallel.rank,
                world_size=self.parallel.world_size,
                num_workers=self._num_workers,
            )
        )
        adapted = loader if work.adapt is None else work.adapt(loader)
        return (batch_on_device(batch, self.device) for batch in adapted)
