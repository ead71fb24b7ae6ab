"""What all phases of `train_default_model` share: settings, the clock, the loop, the report."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from soundreel.checkpoints.store import load_component
from soundreel.data.scenes.render import KINDS
from soundreel.diffusion.noise import derived_seed
from soundreel.nn.layout import to_channels_last
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig, MultiModalAutoencoder
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.stage_tools import StageTools
from soundreel.training.ema import EMA
from soundreel.training.loop import NonFiniteLossError, TrainConfig
from soundreel.training.trackers import JsonLines

SHARES = {
    "rendering": 0.16,
    "first_stage": 0.14,
    "autoencoder": 0.28,
    "decoder": 0.06,
    "generator": 0.28,
    "evaluation": 0.08,
}
"""Of the time, in order. What a phase leaves or takes too much is shared by those after it."""

STAGES: dict[str, tuple[type, type]] = {
    "first_stage": (KLVAE, KLVAEConfig),
    "autoencoder": (MultiModalAutoencoder, AutoencoderConfig),
    "decoder": (MultiModalAutoencoder, AutoencoderConfig),
    "generator": (Generator, GeneratorConfig),
}
FALL = 0.4  # last part of a stage's time, in which the learning rate falls
NO_LIMIT = 10**12

Loss = Callable[[Tensor, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""`loss(rows, generator)`: what to minimise on these clips, and means for the log."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a stage is trained where that differs from the preset.

    Attributes:
        batch: clips a step.
        samples: clips to see at most; the time may end the stage before.
    """

    batch: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    precision: str
    samples: int = NO_LIMIT


CARD = {
    "first_stage": Setting(
        batch=128, learning_rate=1e-3, warmup_steps=200, ema_decay=0.998, precision="bfloat16"
    ),
    "autoencoder": Setting(
        batch=256, learning_rate=4e-4, warmup_steps=500, ema_decay=0.999, precision="bfloat16"
    ),
    "decoder": Setting(
        batch=256, learning_rate=4e-4, warmup_steps=200, ema_decay=0.998, precision="bfloat16"
    ),
    "generator": Setting(
        batch=512, learning_rate=6e-4, warmup_steps=500, ema_decay=0.999, precision="bfloat16"
    ),
}
TINY = {
    stage: Setting(
        batch=8,
        learning_rate=1e-3,
        warmup_steps=2,
        ema_decay=0.5,
        precision="float32",
        samples=64,
    )
    for stage in STAGES
}


class Clock:
    """Divides the time that is left among the phases that are left."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    def deadline(self, phase: str) -> float:
        """When a phase that starts now has to end, as `time.monotonic()` counts."""
        now, names = time.monotonic(), list(SHARES)
        ahead = sum(SHARES[name] for name in names[names.index(phase) :])
        return now + max(self._end - now, 0.0) * SHARES[phase] / ahead


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all phases share."""

    config: MMLDMConfig
    out: Path
    clock: Clock
    tools: StageTools
    compile_mode: str
    report: dict[str, Any]

    @property
    def device(self) -> torch.device:
        return self.tools.device

    def note(self, name: str, numbers: dict[str, float]) -> None:
        """Add numbers to the report, which is written at once."""
        self.report.setdefault(name, {}).update(numbers)
        (self.out / "report.json").write_text(json.dumps(self.report, indent=1) + "\n")
        say(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def configured(base: MMLDMConfig, settings: dict[str, Setting]) -> MMLDMConfig:
    """The preset with the settings laid over it, without adversaries, and with the classes.

    The preset for the card has these classes already; the tiny one gets them to go the same way.
    """
    model, num_classes = base.autoencoder.model, len(KINDS)
    model = replace(model, decoder=replace(model.decoder, num_classes=num_classes))
    config = replace(
        base,
        first_stage=replace(base.first_stage, adversary=False),
        autoencoder=replace(base.autoencoder, model=model),
        adversarial=replace(base.adversarial, enabled=False),
        generator=replace(
            base.generator, model=replace(base.generator.model, num_classes=num_classes)
        ),
    )
    for stage, setting in settings.items():
        config = with_train(
            config,
            stage,
            total_samples=setting.samples,
            global_batch_size=setting.batch,
            micro_batch_size=setting.batch,
            learning_rate=setting.learning_rate,
            warmup_samples=setting.warmup_steps * setting.batch,
            ema_decay=setting.ema_decay,
            precision=setting.precision,
            log_every=200 * setting.batch,
        )
    return config


def with_train(config: MMLDMConfig, stage: str, **changes: Any) -> MMLDMConfig:
    """The configuration with other settings of one stage's training."""
    part = getattr(config, stage)
    changed: Any = {stage: replace(part, train=replace(part.train, **changes))}
    return replace(config, **changed)


def with_samples_seen(config: MMLDMConfig, report: dict[str, Any]) -> MMLDMConfig:
    """The configuration that says how long the stages were trained, not how long they might be."""
    for stage in STAGES:
        seen = report.get(stage, {}).get("samples")
        if seen:
            config = with_train(config, stage, total_samples=int(seen))
    return config


def learning_rate(train: TrainConfig, samples: int, progress: float) -> float:
    """Rises over `warmup_samples`, stays, and falls over the last part of the stage."""
    rise = min(1.0, (samples + train.global_batch_size) / max(train.warmup_samples, 1))
    fall = min(1.0, (1.0 - progress) / FALL)
    return train.learning_rate * rise * max(fall, 0.01)


def optimizer_of(network: nn.Module, train: TrainConfig, shares: dict[str, float]) -> Any:
    """AdamW; parts of the network may learn at a share of the rate, kept as `rate_share`."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        own = [share for part, share in shares.items() if name.startswith(f"{part}.")]
        groups.setdefault(own[0] if own else 1.0, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": members, "rate_share": share} for share, members in groups.items()],
        lr=train.learning_rate,
        weight_decay=train.weight_decay,
        fused=next(network.parameters()).is_cuda,
    )


def fit(
    run: Run,
    stage: str,
    network: nn.Module,
    loss: Loss,
    train: TrainConfig,
    num_clips: int,
    shares: dict[str, float] | None = None,
) -> None:
    """Train until the stage's time is over, and leave the averaged weights in the network."""
    started, deadline = time.monotonic(), run.clock.deadline(stage)
    optimizer, ema = optimizer_of(network, train, shares or {}), EMA(network, train.ema_decay)
    if run.compile_mode != "off":
        network.compile(mode=run.compile_mode, dynamic=False)
    network.train()
    log = StageLog(run, stage)
    generator = torch.Generator(run.device).manual_seed(derived_seed(train.seed, 1))
    samples, progress = 0, 0.0
    while progress < 1:
        rate = learning_rate(train, samples, progress)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]
        rows = torch.randint(
            num_clips, (train.global_batch_size,), generator=generator, device=run.device
        )
        if run.compile_mode != "off":
            torch.compiler.cudagraph_mark_step_begin()  # for the modes that replay graphs
        with torch.autocast(run.device.type, torch.bfloat16, enabled=train.precision == "bfloat16"):
            total, terms = loss(rows, generator)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(
            network.parameters(), train.max_grad_norm or math.inf, foreach=True
        )
        optimizer.step()
        ema.update()
        before, samples = samples, samples + train.global_batch_size
        log.add({"loss": total, "grad_norm": norm, **terms})
        spent = (time.monotonic() - started) / max(deadline - started, 1e-9)
        progress = max(spent, samples / train.total_samples)
        if samples // train.log_every > before // train.log_every or progress >= 1:
            log.flush(samples, rate)
    network.load_state_dict(ema.state_dict())
    network.eval()
    seconds = time.monotonic() - started
    run.note(
        stage,
        {
            "samples": samples,
            "steps": samples // train.global_batch_size,
            "seconds": seconds,
            "samples_per_s": samples / seconds,
        },
    )


class StageLog:
    """Means since the last line; reading them waits for the device, so it is done now and then."""

    def __init__(self, run: Run, stage: str) -> None:
        self._stage = stage
        self._write = JsonLines(run.out / stage / "log.jsonl")
        self._sums: dict[str, Tensor] = {}
        self._steps = self._samples = 0
        self._since = time.monotonic()

    def add(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._steps += 1

    def flush(self, samples: int, rate: float) -> None:
        """Write a line.

        Raises:
            NonFiniteLossError: a loss or gradient was not finite since the last line.
        """
        means = {name: float(value) / self._steps for name, value in self._sums.items()}
        speed = (samples - self._samples) / max(time.monotonic() - self._since, 1e-9)
        line = {"samples": samples, "samples_per_s": speed, "learning_rate": rate, **means}
        say(f"{self._stage}: " + ", ".join(f"{k} {v:.4g}" for k, v in line.items()))
        if not all(math.isfinite(value) for value in means.values()):
            raise NonFiniteLossError(f"{self._stage}: not finite near sample {samples}: {means}")
        self._write(line)
        self._sums, self._steps, self._samples = {}, 0, samples
        self._since = time.monotonic()


def is_finished(run: Run, stage: str) -> bool:
    return (run.out / stage / "component" / "model_index.json").is_file()


def finished(run: Run, stage: str) -> Any:
    """The network that a stage left, frozen and not compiled."""
    network, _ = load_component(run.out / stage / "component", "network", *STAGES[stage])
    return to_channels_last(network.eval().requires_grad_(False)).to(run.device)
