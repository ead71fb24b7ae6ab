"""A run of all stages of MM-LDM, from a prepared data set to a model folder.

    OUT/config.json
    OUT/first_stage/   stage 1: log.jsonl checkpoints/ previews/, component/ (averaged weights)
    OUT/moments/       posteriors of all frames and mel images, if they are cached
    OUT/autoencoder/   as first_stage: stage 2 without adversary
    OUT/adversarial/   stage 2 with it
    OUT/decoder/       stage 2's signal decoder and projectors, own latents often withheld
    OUT/latents/       perceptual latents of all windows, and their statistics
    OUT/captions/      token states of all captions, if there is a text encoder
    OUT/generator/     stage 3
    OUT/model/         everything, for `soundreel.load`

A stage is finished when its `component` folder exists; finished stages are not trained again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from soundreel.config_io import ConfigError, save_json
from soundreel.systems.mm_ldm.conditions import with_text_encoder_hash
from soundreel.systems.mm_ldm.config import STAGES, MMLDMConfig
from soundreel.systems.mm_ldm.stages import StageRunner
from soundreel.training.meters import Tracker
from soundreel.training.run_folder import check_out, machine_restored, prepare_machine


@machine_restored()
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
        stages: which to run, of "first_stage", "autoencoder", "adversarial", "decoder" and
            "generator"; those before them must be finished.
        trackers: makes further receivers of the logged numbers, once the run is known to start.

    Returns:
        Whether all that was asked for is finished; False if the run was told to stop.

    Raises:
        ConfigError: `out` holds another run, or a stage is asked for whose predecessor is missing.
        CheckpointError: weights, text encoder or vocoder that are named cannot be read.
        DataError, ValueError: the data set does not fit the configuration.
    """
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        raise ConfigError(f"stages are {', '.join(STAGES)}, got {', '.join(stages) or 'none'}")
    config = with_text_encoder_hash(config)
    check_out(config, out, resume=resume)
    prepare_machine(config.generator.train.num_threads)
    runner = StageRunner(config, data, out, trackers)
    out.mkdir(parents=True, exist_ok=True)
    save_json(config, out / "config.json")
    for name in STAGES:
        if name in ("adversarial", "decoder") and not getattr(config, name).enabled:
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
