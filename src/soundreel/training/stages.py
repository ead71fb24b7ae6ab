"""The stage runner: trains the stages of any system in order, each from those before it.

    OUT/config.json        the configuration
    OUT/STAGE/             log.jsonl, checkpoints/, previews/ and, once finished, component/
    OUT/model/             for `soundreel.load`

A stage whose folder is that of the run itself (systems of one stage) leaves the model directly,
also when it was told to stop, and may be trained on after its end.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from soundreel.config_io import ConfigError, save_json
from soundreel.device import faster_precision, find_device
from soundreel.files import locked
from soundreel.protocols import Stage, Tracker
from soundreel.training.init import initial_model
from soundreel.training.loop import TrainConfig
from soundreel.training.parallel import Parallel, start_parallel
from soundreel.training.run import COMPONENT, Run, StageWork, StoppedError
from soundreel.training.run_folder import (
    as_begun,
    check_out,
    machine_restored,
    prepare_machine,
    stage_precisions,
    with_precision,
)
from soundreel.training.signals import StopRequest

logger = logging.getLogger(__name__)


class Recipe:
    """A system's training of its stages; made, and the data set read, before anything is
    written."""

    def begin(self, stage: str) -> StageWork[Any]:
        """Return what a stage trains; the stages before it are finished."""
        raise NotImplementedError

    def save_model(self) -> None:
        """Write `model/` from the finished stages; a system of one stage does so as that ends."""


@machine_restored()
def train_stages(
    config: Any,
    out: Path,
    *,
    system: str,
    all_stages: Sequence[Stage],
    train_configs: Mapping[str, TrainConfig],
    recipe: Callable[[Run], Recipe],
    stages: Sequence[str] = (),
    init: str = "",
    device: str | None = None,
    resume: bool = False,
    trackers: Callable[[], list[Tracker]] = list,
) -> bool:
    """Train the stages of a system in order; leave `out/model` when all are finished.

    Under `torchrun` every process takes its part of each batch, and the first one writes.

    Args:
        config: the run's configuration; its `data.num_workers` read ahead.
        all_stages: of the configuration, in order; those without samples are left out.
        train_configs: how each stage that has samples is trained.
        recipe: makes the system's recipe; reads the data set.
        stages: names of those to run, whose predecessors must be finished; empty runs all.
        init: model folder or Hub name whose networks the run starts from. Stages before those to
            run are then taken from there as they are.
        device: where to train; None is CUDA where there is one, else the CPU.
        resume: go on where the run in `out` stopped, with the same `init` if it had one.
        trackers: makes further receivers of the logged numbers, once the run is known to start.

    Returns:
        Whether all that was asked for is finished; False if the run was told to stop.

    Raises:
        ConfigError: `out` holds another run, a stage is asked for that there is not or whose
            predecessor is missing, a stage is shorter than a step, or a batch does not divide among
            the processes. Nothing has been written then.
        FolderInUseError: another run is under way in `out`.
    """
    trained = [stage for stage in all_stages if stage.total_samples]
    wanted = _wanted(trained, stages)
    asked, config = config, as_begun(config, out)
    check_out(config, out, resume=resume)
    initial = initial_model(out, init)
    where = find_device(device)
    parallel = start_parallel(where)
    threads = torch.get_num_threads()
    config = _settled(config, parallel, where)
    with StopRequest() as stop:
        run = Run(
            out,
            system=system,
            num_workers=config.data.num_workers,
            parallel=parallel,
            stop=stop,
            trackers=trackers,
            init=initial,
            device=where,
            precisions=stage_precisions(asked, train_configs, config),
        )
        todo, taken = _todo(trained, wanted, run)
        for stage in todo:
            _check(stage, train_configs[stage.name], run)
        plan = recipe(run)
        with locked(out) if parallel.is_main else nullcontext():
            if parallel.is_main:
                save_json(config, out / "config.json")
                if initial is not None:
                    initial.remember(out)
                    for stage in taken:
                        initial.copy(stage.component, run.component(stage.name), COMPONENT)
            parallel.barrier()
            try:
                finished = all(
                    _run_stage(
                        run, stage, plan, train_configs[stage.name], threads, _place(stage, trained)
                    )
                    for stage in todo
                )
            except StoppedError:
                finished = False
            if all(run.is_finished(stage) for stage in all_stages) and parallel.is_main:
                plan.save_model()
    parallel.finish()
    return finished


def _check(stage: Stage, train: TrainConfig, run: Run) -> None:
    """Raise `ConfigError` where a stage cannot be trained as it is configured."""
    try:
        train.grad_accum_steps(run.parallel.world_size)
    except ValueError as error:
        raise ConfigError(f"stage {stage.name}: {error}") from None
    total, batch = train.total_samples, train.global_batch_size
    if total < batch:
        raise ConfigError(
            f"stage {stage.name}: total_samples {total} is less than global_batch_size {batch}, the"
            " clips of one step; raise the first or lower the second"
        )
    if train.lora.rank and run.init is None:
        raise ConfigError(
            f"stage {stage.name}: lora.rank adapts a trained network; name its model with --init"
        )


def _settled(config: Any, parallel: Parallel, device: torch.device) -> Any:
    """Return the configuration with the precision that the main process finds the faster."""

    @functools.cache
    def measured() -> str:
        # Each stage says its precision as it begins; a run that is refused says nothing else.
        is_faster = faster_precision(device)[0] == "bfloat16"
        return "bfloat16" if parallel.of_main(is_faster, device) else "float32"

    return with_precision(config, lambda names: measured())


def _place(stage: Stage, trained: Sequence[Stage]) -> str:
    """Return which stage of how many it is; nothing where there is but one."""
    return f"stage {trained.index(stage) + 1} of {len(trained)}, " if len(trained) > 1 else ""


def _run_stage(
    run: Run, stage: Stage, plan: Recipe, train: TrainConfig, threads: int, place: str
) -> bool:
    """Train one stage to its end; return False if it was told to stop before."""
    if run.must_stop():
        return False
    prepare_machine(train.num_threads or threads)
    run.begin(stage, train, place)
    total, warmup, decay = train.total_samples, train.warmup_samples, train.decay_samples
    if warmup + decay > total and run.parallel.is_main:
        rest = f"warmup_samples {warmup} and decay_samples {decay} are more than total_samples"
        logger.warning(
            "the learning rate never reaches %g: %s %d", train.learning_rate, rest, total
        )
    work = plan.begin(stage.name)
    seen = run.fit(stage, work)
    done = seen >= train.total_samples
    if done or not stage.folder:
        run.store(stage, work, seen)
    run.parallel.barrier()
    return done


def _wanted(trained: Sequence[Stage], only: Sequence[str]) -> list[Stage]:
    """Return the stages that were asked for, in their order."""
    names = [stage.name for stage in trained]
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ConfigError(
            f"this configuration trains the stages {', '.join(names)}, not {', '.join(unknown)}"
        )
    return [stage for stage in trained if not only or stage.name in only]


def _todo(
    trained: Sequence[Stage], wanted: Sequence[Stage], run: Run
) -> tuple[list[Stage], list[Stage]]:
    """Return what of the wanted stages is left to do, and the stages taken from `run.init`."""
    taken = []
    for index, stage in enumerate(trained):
        later = [other for other in trained[index:] if other in wanted]
        if stage in wanted or not later or run.is_finished(stage):
            continue
        if run.init is None or not run.init.has(stage.component):
            raise ConfigError(
                f"{run.out}: stage {later[0].name} needs {stage.name}, which is not finished"
            )
        taken.append(stage)
    return [stage for stage in wanted if not run.is_finished(stage)], taken
