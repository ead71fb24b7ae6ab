"""`soundreel train PRESET --data D --out RUN [--resume] [--config FILE] [--SETTING VALUE ...]`."""

import sys
from contextlib import redirect_stderr
from dataclasses import dataclass
from fractions import Fraction
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from soundreel.cli.main import write
from soundreel.cli.training_display import training_display
from soundreel.config_io import ConfigError, merge_file
from soundreel.data.remote import data_folder
from soundreel.errors import SoundreelError
from soundreel.protocols import System, Tracker
from soundreel.systems import preset, preset_names, system
from soundreel.training.trackers import tensorboard_tracker

USAGE = """usage: soundreel train PRESET --data FOLDER --out FOLDER [options]

presets: {presets}

soundreel train PRESET --help lists every setting of a preset and its value."""


Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class TrainArguments(Generic[Settings]):
    """Train a preset on a prepared data set. Every setting of the preset can be changed."""

    data: str
    """Folder made by `soundreel prepare`, or its URL (https://, s3://, ...)."""
    out: Path
    """Folder of the run: log, checkpoints, previews, and the model."""
    resume: bool = False
    """Go on from the newest checkpoint in --out."""
    init: str = ""
    """Model folder or Hub name to start from (fine-tuning), or `default`, the model that comes with
    Soundreel. Stages that --stages leaves out are taken from it as they are."""
    config: Path | None = None
    """YAML file whose values are laid over the preset; flags are laid over both."""
    device: str | None = None
    """Device to train on: cpu, cuda, cuda:1 ... Default: CUDA where there is one."""
    tensorboard: bool = False
    """Also log to --out/tensorboard (needs the extra `tensorboard`)."""
    all_stages: bool = False
    """Train all stages in order, for a preset that has several."""
    stages: tuple[str, ...] = ()
    """Train only these stages of the preset, by name."""
    settings: Annotated[Settings, tyro.conf.arg(name="")]


def train(arguments: list[str]) -> int:
    """Run the command."""
    if not arguments or arguments[0] in ("-h", "--help"):
        write(USAGE.format(presets=", ".join(preset_names())))
        return 0
    settings = preset(arguments[0])
    file = _config_file(arguments[1:])
    if file is not None:
        settings = merge_file(settings, file)
    parsed = _parsed(arguments, settings)
    if not _run(parsed):
        write("stopped before the end and saved; add --resume to go on", error=True)
    else:
        write(what_is_finished(parsed.out, parsed.stages))
    return 0


def _parsed(arguments: list[str], settings: Any) -> TrainArguments[Any]:
    """Return the arguments; a value that the settings refuse is said in their own one line."""
    kind: Any = TrainArguments
    shown = StringIO()
    try:
        with redirect_stderr(shown):
            return tyro.cli(
                kind[type(settings)],
                args=arguments[1:],
                prog=f"soundreel train {arguments[0]}",
                default=TrainArguments(data=tyro.MISSING, out=tyro.MISSING, settings=settings),
                registry=_with_fractions(),
            )
    except SystemExit as stop:
        error = stop.__context__
        while error is not None and not isinstance(error, SoundreelError):
            error = error.__context__
        if error is not None:
            raise error from None
        sys.stderr.write(shown.getvalue())
        raise


def what_is_finished(out: Path, stages: tuple[str, ...]) -> str:
    """Return a line that names the run's model, or only some stages of it."""
    if (out / "model").is_dir():
        return f"model: {out / 'model'}"
    return f"finished in {out}: {', '.join(stages)}; --all-stages --resume makes the model"


def _with_fractions() -> ConstructorRegistry:
    """Return tyro's types, and frame rates such as 10 or 30000/1001."""
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


def _run(arguments: TrainArguments[Any]) -> bool:
    """Train; return whether all that was asked for is finished."""
    settings, out = arguments.settings, arguments.out
    own = system(settings.system)

    stages = _stages(own, arguments)
    with training_display() as display:

        def trackers() -> list[Tracker]:
            extra = [tensorboard_tracker(out / "tensorboard")] if arguments.tensorboard else []
            return [display, *extra]

        return own.train(
            settings,
            data_folder(arguments.data),
            out,
            resume=arguments.resume,
            stages=stages,
            init=arguments.init,
            device=arguments.device,
            trackers=trackers,
        )


def _stages(own: System, arguments: TrainArguments[Any]) -> tuple[str, ...]:
    """Return the stages to train; empty is all of them.

    Raises:
        ConfigError: none or unknown ones are named where there are several.
    """
    names = [stage.name for stage in own.stages(arguments.settings) if stage.total_samples]
    unknown = [name for name in arguments.stages if name not in names]
    if unknown:
        raise ConfigError(f"--stages: one or more of {', '.join(names)}, got {', '.join(unknown)}")
    if arguments.all_stages and arguments.stages:
        raise ConfigError("--all-stages and --stages exclude each other; give one of them")
    if len(names) > 1 and not arguments.all_stages and not arguments.stages:
        raise ConfigError(
            f"this preset is trained in stages ({', '.join(names)}): add --all-stages, or"
            " --stages NAME ..."
        )
    return arguments.stages


def _config_file(arguments: list[str]) -> Path | None:
    """Return the value of --config, which must be known before the flags are read."""
    for index, argument in enumerate(arguments):
        if argument.startswith("--config="):
            return Path(argument.partition("=")[2])
        if argument == "--config":
            if index + 1 == len(arguments):
                raise ConfigError("--config needs a file")
            return Path(arguments[index + 1])
    return None
