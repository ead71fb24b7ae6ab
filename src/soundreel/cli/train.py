"""`soundreel train PRESET --data D --out RUN [--resume] [--config FILE] [--SETTING VALUE ...]`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soundreel.cli.main import write
from soundreel.config import ConfigError, MMDiffusionConfig, merge_file
from soundreel.presets.registry import PRESETS, preset
from soundreel.run.mm_diffusion import train_mm_diffusion
from soundreel.training.meters import Tracker
from soundreel.training.trackers import tensorboard_tracker

USAGE = f"""usage: soundreel train PRESET --data FOLDER --out FOLDER [options]

presets: {", ".join(PRESETS)}

soundreel train PRESET --help lists every setting of a preset and its value."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Train a preset on a prepared data set. Every setting of the preset can be changed."""

    data: Path
    """Folder made by `soundreel prepare`."""
    out: Path
    """Folder of the run: log, checkpoints, previews, and the model."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    config: Path | None = None
    """YAML file whose values are laid over the preset; flags are laid over both."""
    tensorboard: bool = False
    """Also log to --out/tensorboard (needs the extra `tensorboard`)."""
    settings: Annotated[MMDiffusionConfig, tyro.conf.arg(name="")]


def train(arguments: list[str]) -> int:
    """Run the command."""
    if not arguments or arguments[0] in ("-h", "--help"):
        write(USAGE)
        return 0
    settings = preset(arguments[0])
    file = _config_file(arguments[1:])
    if file is not None:
        settings = merge_file(settings, file)
    parsed = tyro.cli(
        TrainArguments,
        args=arguments[1:],
        prog=f"soundreel train {arguments[0]}",
        default=TrainArguments(data=tyro.MISSING, out=tyro.MISSING, settings=settings),
    )

    def trackers() -> list[Tracker]:
        extra = [tensorboard_tracker(parsed.out / "tensorboard")] if parsed.tensorboard else []
        return [show_progress, *extra]

    seen = train_mm_diffusion(
        parsed.settings, parsed.data, parsed.out, resume=parsed.resume, trackers=trackers
    )
    if seen < parsed.settings.train.total_samples:
        write(f"stopped at {seen} clips; add --resume to go on", error=True)
    write(f"model: {parsed.out / 'model'}")
    return 0


def show_progress(numbers: Mapping[str, float]) -> None:
    """One line for the terminal: clips seen, losses, speed, time left."""
    losses = "  ".join(
        f"{name.partition('/')[2]} {value:.4f}"
        for name, value in numbers.items()
        if "/" in name and name[-3:-1] != "_q"
    )
    minutes, seconds = divmod(round(numbers["time_left_s"]), 60)
    sys.stderr.write(
        f"{numbers['samples']:>9.0f} clips  {losses}  {numbers['samples_per_s']:.2f} clips/s"
        f"  {minutes // 60}:{minutes % 60:02d}:{seconds:02d} left\n"
    )


def _config_file(arguments: list[str]) -> Path | None:
    """The value of --config, which must be known before the flags are read."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return Path(argument.partition("=")[2])
        if argument == "--config":
            if index + 1 == len(arguments):
                raise ConfigError("--config needs a file")
            return Path(arguments[index + 1])
    return None
