"""The training loop. It knows nothing of video or audio; an objective does.

Progress is counted in samples, so neither the batch size nor the number of machines moves a
schedule. All randomness of a sample follows from (seed, its number), so a resumed run repeats an
uninterrupted one bit for bit on the CPU.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from soundreel.checkpoints.lora import LoRAConfig
from soundreel.device import PRECISIONS, autocast, resolve_precision
from soundreel.errors import SoundreelError
from soundreel.protocols import LiveTracker
from soundreel.training.meters import Meters, Tracker, collected
from soundreel.training.muon import OPTIMIZERS
from soundreel.training.non_finite import raise_if_not_finite
from soundreel.training.objectives import StepObjective, TrainingBatch, TrainingLoss
from soundreel.training.parallel import Parallel
from soundreel.training.signals import StopRequest
from soundreel.training.state import save_training_state
from soundreel.training.step import Step
from soundreel.training.trainee import Trainee

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Settings of training, whatever the model.

    Attributes:
        total_samples: training clips to see in all; 0 takes `epochs`.
        epochs: how often to see the windows of the data set, where `total_samples` is 0.
        global_batch_size: clips per optimizer step.
        micro_batch_size: clips that a process computes at once; divides `global_batch_size`.
        optimizer: "adamw", or "muon" for Muon on the matrices of blocks and AdamW on the rest.
        learning_rate: constant after `warmup_samples` of linear increase and up to the last
            `decay_samples`, over which it falls linearly to nothing.
        ema_decay: of the averaged weights per step; 0 keeps none.
        max_grad_norm: clip the gradient's norm to this; 0 does not clip.
        precision: "float32", "bfloat16" for automatic mixed precision, or "auto" for bfloat16 where
            a short measured product is faster in it. A run keeps what it began with.
        sharding: with several processes, divide weights, gradients, moments and average among them
            in place of keeping all in each; an adversary stays whole.
        compile: run the networks through `torch.compile`.
        checkpoint_activations: recompute activations in the backward pass; less memory, more time.
        *_every: samples between log lines, checkpoints and previews (0: no previews); the last step
            has a line.
        keep_checkpoints: how many of them to keep.
        seed: of initial weights, data order, noise and dropout.
        num_threads: CPU threads; 0 leaves PyTorch's choice.
        lora: adapts the network that the run starts from, in place of training it whole.
    """

    total_samples: int = 12_800_000
    epochs: float = 0.0
    global_batch_size: int = 128
    micro_batch_size: int = 4
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    warmup_samples: int = 0
    decay_samples: int = 0
    ema_decay: float = 0.9999
    max_grad_norm: float = 0.0
    precision: str = "auto"
    sharding: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    log_every: int = 1280
    save_every: int = 64_000
    preview_every: int = 64_000
    keep_checkpoints: int = 2
    seed: int = 0
    num_threads: int = 0
    lora: LoRAConfig = field(default_factory=LoRAConfig)

    def __post_init__(self) -> None:
        if min(self.total_samples, self.epochs) < 0 or not (self.total_samples or self.epochs):
            raise SoundreelError(
                "total_samples must be positive, or 0 with positive epochs, got "
                f"{self.total_samples} and {self.epochs}"
            )
        positive = ("global_batch_size", "micro_batch_size", "learning_rate", "log_every")
        for name in (*positive, "save_every", "keep_checkpoints"):
            if getattr(self, name) <= 0:
                raise SoundreelError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup_samples", "decay_samples", "seed"):
            if getattr(self, name) < 0:
                raise SoundreelError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.global_batch_size % self.micro_batch_size:
            raise SoundreelError(
                f"global_batch_size {self.global_batch_size} must be a multiple of"
                f" micro_batch_size {self.micro_batch_size}"
            )
        for name, names in (("precision", PRECISIONS), ("optimizer", OPTIMIZERS)):
            if getattr(self, name) not in names:
                raise SoundreelError(
                    f"{name} is one of {', '.join(names)}, got {getattr(self, name)!r}"
                )
        if self.sharding and self.compile:
            raise SoundreelError(
                "sharding and compile exclude each other: set one of them to False"
            )
        if not 0 <= self.ema_decay < 1:
            raise SoundreelError(f"ema_decay must be in [0, 1), got {self.ema_decay}")

    def grad_accum_steps(self, world_size: int = 1) -> int:
        """Return micro-batches per step and process.

        Raises:
            SoundreelError: the global batch does not divide among the processes.
        """
        at_once = self.micro_batch_size * world_size
        if self.global_batch_size % at_once:
            raise SoundreelError(
                f"global_batch_size {self.global_batch_size} must be a multiple of"
                f" micro_batch_size {self.micro_batch_size} times {world_size} processes"
            )
        return self.global_batch_size // at_once


def fit(
    trainees: list[Trainee],
    batches: Iterator[TrainingBatch],
    config: TrainConfig,
    *,
    checkpoints: Path,
    samples_seen: int = 0,
    trackers: list[Tracker] | None = None,
    preview: Callable[[int], None] | None = None,
    parallel: Parallel | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Train until `total_samples`, or until SIGTERM or Ctrl-C; then save.

    Args:
        trainees: networks that learn in turn from each batch.
        batches: endless micro-batches that start at sample `samples_seen`.
        checkpoints: folder of the training state.
        trackers: get one dictionary of numbers each `log_every` samples; live ones, each step.
        preview: called with the samples seen each `preview_every` samples, in every process.
        parallel: the processes of the run; the main one writes, all others only their shares of
            divided networks. Losses are logged over all.
        stop: a request that is watched already; by default signals are watched while training.

    Returns:
        Samples seen; less than `total_samples` if it was asked to stop.

    Raises:
        NonFiniteLossError: before the step that would have used the value.
    """
    parallel = Parallel() if parallel is None else parallel
    is_main = parallel.is_main
    grad_accum_steps = config.grad_accum_steps(parallel.world_size)
    precision = resolve_precision(trainees[0].device, config.precision)
    for trainee in trainees if config.compile else ():
        trainee.network.compile()
    networks = [t.network if t.sharded else parallel.wrap(t.network) for t in trainees]
    keep = config.keep_checkpoints
    save = partial(save_training_state, checkpoints, trainees, keep=keep, is_main=is_main)
    meters = Meters(config.total_samples, samples_seen)
    live = [t for t in trackers or () if isinstance(t, LiveTracker)]
    with StopRequest() if stop is None else nullcontext(stop) as stop:
        stopped = parallel.any(stop.requested, trainees[0].device)
        while samples_seen < config.total_samples and not stopped:
            rate = _learning_rate(config, samples_seen)
            step = Step(
                list(islice(batches, grad_accum_steps)),
                samples_seen,
                parallel,
                config.seed,
                precision,
            )
            sums, stopped = _step(trainees, networks, step, config, rate, stop.requested)
            meters.add(sums)
            before, samples_seen = samples_seen, samples_seen + config.global_batch_size
            meters.advance(samples_seen)
            for tracker in live:
                tracker.step(samples_seen, config.total_samples)

            def due(every: int, before: int = before, now: int = samples_seen) -> bool:
                return every > 0 and now // every > before // every

            if is_main and (due(config.log_every) or samples_seen >= config.total_samples):
                line = meters.flush(learning_rate=rate)
                for tracker in trackers or ():
                    tracker(line)
            if due(config.save_every):
                save(samples_seen)
            if preview is not None and due(config.preview_every):
                started = time.monotonic()
                preview(samples_seen)
                meters.exclude(time.monotonic() - started)
            stopped = stopped or (stop.requested and parallel.world_size == 1)
    save(samples_seen)
    if is_main and stopped:
        logger.info("stopped and saved at %d samples", samples_seen)
    return samples_seen


def _step(
    trainees: Sequence[Trainee],
    networks: Sequence[nn.Module],
    step: Step,
    config: TrainConfig,
    learning_rate: float,
    stop_requested: bool,
) -> tuple[dict[str, tuple[float, float]], bool]:
    """Take one optimizer step of every trainee, over all micro-batches.

    Nobody is updated before all have their gradients: an adversary judges what its opponent made in
    this step, and the host waits once for the numbers of both.

    Returns:
        Sums and counts for the log, over all processes, and whether any of them is to stop.
    """
    passes = {
        trainee.name: _gradients(trainee, network, step, config)
        for trainee, network in zip(trainees, networks, strict=True)
    }
    sums, stopped = collected(passes, step, stop_requested)
    for trainee in trainees:
        raise_if_not_finite(trainee, step, passes[trainee.name][0], sums)
    for trainee in trainees:
        for group in trainee.optimizer.param_groups:
            # Absent from states that were saved before shares existed.
            group["lr"] = learning_rate * group.get("rate_share", 1.0)
        with autocast(trainee.device, step.precision):  # of Muon's products
            trainee.optimizer.step()
        if trainee.ema is not None:
            trainee.ema.update()
        del sums[f"{trainee.name}/loss"]
    return sums, stopped


def _gradients(
    trainee: Trainee, network: nn.Module, step: Step, config: TrainConfig
) -> tuple[list[TrainingLoss], Tensor]:
    """Run all micro-batches forward and backward; return their losses and the gradient's norm."""
    trainee.network.train()
    trainee.optimizer.zero_grad(set_to_none=True)
    if isinstance(trainee.objective, StepObjective):
        trainee.objective.prepare(trainee.network, step)
    results: list[TrainingLoss] = []
    for batch in step.batches:
        is_last = len(results) == len(step.batches) - 1
        with nullcontext() if is_last else step.parallel.accumulating(network):
            with step.forward(batch):
                result = trainee.objective(network, batch, step.noise(batch))
            (result.loss / len(step.batches)).backward()
        results.append(TrainingLoss(result.loss.detach(), result.means))
    weights = list(trainee.network.parameters())
    gradients = [p.grad for p in weights if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if trainee.sharded:
        from soundreel.training.sharding import whole

        norm = whole(norm)
    if config.max_grad_norm:
        torch.nn.utils.clip_grads_with_norm_(weights, config.max_grad_norm, norm, foreach=True)
    return results, norm


def _learning_rate(config: TrainConfig, samples_seen: int) -> float:
    share = min(1.0, (samples_seen + 1) / max(1, config.warmup_samples))
    left = config.total_samples - samples_seen
    if left < config.decay_samples:
        share = min(share, left / config.decay_samples)
    return share * config.learning_rate
