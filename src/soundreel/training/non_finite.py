"""Losses and gradients that are not finite: noticed before they are used, and explained."""

import math
from collections.abc import Mapping, Sequence

from soundreel.errors import SoundreelError
from soundreel.training.objectives import TrainingLoss
from soundreel.training.step import Step
from soundreel.training.trainee import Trainee


class NonFiniteLossError(SoundreelError):
    """A loss or gradient became infinite or not a number; nothing was updated."""


def raise_if_not_finite(
    trainee: Trainee,
    step: Step,
    results: Sequence[TrainingLoss],
    sums: Mapping[str, tuple[float, float]],
) -> None:
    """Raise `NonFiniteLossError` where a trainee's loss or gradient is not finite."""
    if not math.isfinite(sums[f"{trainee.name}/loss"][0]):
        raise NonFiniteLossError(_diagnosis(trainee, step, results))
    norm = sums[f"{trainee.name}/grad_norm"][0]
    if not math.isfinite(norm):
        raise NonFiniteLossError(
            f"{trainee.name}: the gradient's norm is {norm} near sample {step.first_sample}"
            " although the loss is finite; lower learning_rate, set max_grad_norm, or use float32"
        )


def _diagnosis(trainee: Trainee, step: Step, results: Sequence[TrainingLoss]) -> str:
    """Say which samples, which terms, and whether data and parameters are to blame."""
    parts = list(zip(step.batches, results, strict=True))
    broken_here = [part for part in parts if not math.isfinite(float(part[1].loss))]
    if not broken_here:
        return f"{trainee.name}: loss is not finite in another process; its message says more"
    batch, result = broken_here[0]
    bad = [name for name, (value, _) in result.means.items() if not math.isfinite(float(value))]
    data = "finite" if all(t.isfinite().all() for t in batch.av.tensors) else "NOT finite"
    own = {n: p.detach() for n, p in trainee.network.named_parameters()}
    if trainee.sharded:  # the other processes do not come here
        from soundreel.training.sharding import local

        own = {name: local(p) for name, p in own.items()}
    broken = [name for name, p in own.items() if not p.isfinite().all()]
    return (
        f"{trainee.name}: loss is not finite at samples {batch.sample_index}.."
        f"{batch.sample_index + len(batch.label) - 1} (clips {list(getattr(batch, 'keys', []))});"
        f" terms {bad}; the batch is {data}; parameters not finite: {broken[:4] or 'none'}."
        " Nothing was updated; resume from the last checkpoint with a lower learning_rate,"
        " max_grad_norm=1 or precision=float32"
    )
