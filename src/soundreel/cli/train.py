"""`soundreel train PRESET --data D --out RUN [--resume] [--config FILE] [--SETTING VALUE ...]`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from soundreel.cli.main import write
from soundreel.config_io import ConfigError, merge_file
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.training import train_mm_diffusion
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.training import train_mm_ldm
from soundreel.systems.presets import PRESETS, RunConfig, preset
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.training import train_super_resolution
from soundreel.training.meters import Tracker
from soundreel.training.trackers import tensorboard_tracker

USAGE = f"""usage: soundreel train PRESET --data FOLDER --out FOLDER [options]

presets: {", ".join(PRESETS)}

soundreel train PRESET --help lists every setting of a preset and its value."""


Settings = TypeVar("Settings", bound=RunConfig)


@dataclass(frozen=True, kw_only=True)
class TrainArguments(Generic[Settings]):
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
    all_stages: bool = False
    """For MM-LDM, which is trained in stages: run them all, in order."""
    stages: tuple[str, ...] = ()
    """For MM-LDM: only these of first_stage, autoencoder, adversarial, decoder, generator."""
    settings: Annotated[Settings, tyro.conf.arg(name="")]


ARGUMENTS = {
    MMDiffusionConfig: TrainArguments[MMDiffusionConfig],
    SuperResolutionRunConfig: TrainArguments[SuperResolutionRunConfig],
    MMLDMConfig: TrainArguments[MMLDMConfig],
}


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
        ARGUMENTS[type(settings)],
        args=arguments[1:],
        prog=f"soundreel train {arguments[0]}",
        default=TrainArguments(data=tyro.MISSING, out=tyro.MISSING, settings=settings),
        registry=_with_fractions(),
    )
    if not _run(parsed):
        write("stopped before the end and saved; add --resume to go on", error=True)
    else:
        write(what_is_finished(parsed.out, parsed.stages))
    return 0


def what_is_finished(out: Path, stages: tuple[str, ...]) -> str:
    """The run's model, or only some stages of it."""
    if (out / "model").is_dir():
        return f"model: {out / 'model'}"
    return f"finished in {out}: {', '.join(stages)}; --all-stages --resume makes the model"


def _with_fractions() -> ConstructorRegistry:
    """tyro's types, and frame rates such as 10 or 30000/1001."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def fraction(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Fraction] | None:
        if info.type is not Fraction:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="NUMBER|N/D",
            instance_from_str=lambda words: Fraction(words[0]),
            is_instance=lambda value: isinstance(value, Fraction),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _run(
    arguments: TrainArguments[MMDiffusionConfig]
    | TrainArguments[SuperResolutionRunConfig]
    | TrainArguments[MMLDMConfig],
) -> bool:
    """Train; whether it came to its end."""
    settings, out = arguments.settings, arguments.out

    def trackers() -> list[Tracker]:
        extra = [tensorboard_tracker(out / "tensorboard")] if arguments.tensorboard else []
        return [show_progress, *extra]

    options = {"resume": arguments.resume, "trackers": trackers}
    if isinstance(settings, MMLDMConfig):
        if arguments.all_stages == bool(arguments.stages):
            raise ConfigError("MM-LDM is trained in stages: add --all-stages, or --stages NAME ...")
        return train_mm_ldm(settings, arguments.data, out, stages=arguments.stages, **options)
    if arguments.stages or arguments.all_stages:
        raise ConfigError("--stages and --all-stages are for MM-LDM; this preset has one stage")
    if isinstance(settings, MMDiffusionConfig):
        return train_mm_diffusion(settings, arguments.data, out, **options)
    return train_super_resolution(settings, arguments.data, out, **options)


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
