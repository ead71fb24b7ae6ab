"""A run of all stages of MM-LDM, from a prepared data set to a model folder.

    OUT/config.json
    OUT/first_stage/   stage 1: log.jsonl checkpoints/ previews/, component/ (averaged weights)
    OUT/moments/       posteriors of all frames and mel images, if they are cached
    OUT/autoencoder/   as first_stage: stage 2 without adversary
    OUT/adversarial/   stage 2 with it
    OUT/latents/       perceptual latents of all windows, and their statistics
    OUT/generator/     stage 3
    OUT/model/         everything, for `soundreel.load`

A stage is finished when its `component` folder exists; finished stages are not trained again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from soundreel.checkpoints.config_json import config_to_json
from soundreel.config import ConfigError, load_json, save_json
from soundreel.config_mm_ldm import STAGES, MMLDMConfig
from soundreel.run.mm_diffusion import prepare_machine
from soundreel.run.mm_ldm_stages import StageRunner
from soundreel.training.meters import Tracker


def train_mm_ldm(
    config: MMLDMConfig,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    stages: Sequence[str] = STAGES,
    trackers: Callable[[], list[Tracker]] = list,
) -> bool:
    """Train the stages in order, each from the one before; leave `out/model`.

    Args:
        data: folder made by `soundreel prepare`.
        resume: go on where the run in `out` stopped.
        stages: which to run, of "first_stage", "autoencoder", "adversarial" and "generator"; those
            before them must be finished.
        trackers: makes further receivers of the logged numbers, once the run is known to start.

    Returns:
        Whether all that was asked for is finished; False if the run was told to stop.

    Raises:
        ConfigError: `out` holds another run, or a stage is asked for whose predecessor is missing.
        DataError, ValueError: the data set does not fit the configuration.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        raise ConfigError(f"stages are {', '.join(STAGES)}, got {', '.join(stages) or 'none'}")
    check_out(config, out, resume=resume)
    prepare_machine(config.generator.train.num_threads)
    runner = StageRunner(config, data, out, trackers)
    out.mkdir(parents=True, exist_ok=True)
    save_json(config, out / "config.json")
    for name in STAGES:
        if name == "adversarial" and not config.adversarial.enabled:
            continue
        if runner.is_finished(name):
            continue
        if name not in stages:
            later = [stage for stage in stages if STAGES.index(stage) > STAGES.index(name)]
            if later:
                raise ConfigError(f"{out}: stage {later[0]} needs {name}, which is not finished")
            continue
        if not runner.run(name):
            return False
    if runner.is_finished("generator"):
        runner.save_model()
    return True


def check_out(config: MMLDMConfig, out: Path, *, resume: bool) -> None:
    """Stop before any work if `out` does not fit what is asked.

    Raises:
        ConfigError: naming what differs.
    """
    path = out / "config.json"
    if not path.exists():
        if resume:
            raise ConfigError(f"{out}: no run to resume here; leave out --resume to start one")
        return
    if not resume:
        raise ConfigError(f"{out}: holds a run already; add --resume to go on, or choose another")
    before, now = fixed_part(load_json(MMLDMConfig, path)), fixed_part(config)
    if before != now:
        parts = ", ".join(sorted(name for name in now if before.get(name) != now[name]))
        raise ConfigError(
            f"{out}: was begun with another configuration ({parts} differ from {path}); "
            "resume with the same, or start a new run elsewhere"
        )


def fixed_part(config: MMLDMConfig) -> dict[str, object]:
    """What a resumed run must not change, by dotted name."""
    values = config_to_json(config)
    for name in ("preview", "decoding", "sampling"):
        del values[name]
    for name in ("cache", "num_workers"):
        del values["data"][name]
    free = ("total_samples", "log_every", "save_every", "preview_every", "keep_checkpoints")
    for stage in STAGES:
        for name in (*free, "num_threads"):
            del values[stage]["train"][name]
    return {
        f"{name}.{key}": inner
        for name, value in values.items()
        for key, inner in (value.items() if isinstance(value, dict) else [("", value)])
    }
