"""Two sets of clips against each other: distances, sync, copies, overall and by class."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from soundreel.errors import SoundreelError
from soundreel.metrics.copies import Copies, copies_among_real
from soundreel.metrics.extractors import METRICS, MetricDefinition
from soundreel.metrics.frechet import Estimate, frechet_interval
from soundreel.metrics.kernel import kernel_interval
from soundreel.metrics.measure import MeasuredSet, Skipped
from soundreel.metrics.sync.score import Sync, SyncSummary, summarise

MIN_PER_CLASS = 8
MIN_CLIPS = 3
"""Fewest clips of each set: with fewer, neither an interval nor an ordinary distance between clips
exists."""
NUM_FRECHET_RESAMPLES = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricResult:
    """A distance over all clips, and by class where both sets hold at least 8 of it.

    Attributes:
        weights_sha256: of the file the extractor's weights came from.
    """

    name: str
    overall: Estimate
    by_class: dict[str, Estimate]
    weights_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """Sync of one set; `unmeasured` clips were too short or had too low rates."""

    overall: SyncSummary | None
    by_class: dict[str, SyncSummary]
    unmeasured: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All results, free of anything that differs between two runs on the same files."""

    metrics: tuple[MetricResult, ...]
    sync_real: SyncReport
    sync_generated: SyncReport
    copies: Copies
    num_real: int
    num_generated: int
    skipped_real: tuple[Skipped, ...]
    skipped_generated: tuple[Skipped, ...]
    warnings: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; a number that does not exist (an offset of silence) is None."""
        return _without_nan(asdict(self))


def evaluate_sets(
    real: MeasuredSet,
    generated: MeasuredSet,
    metrics: Sequence[str],
    weights_sha256: dict[str, str],
    seed: int,
    provenance: dict[str, Any],
    copies: Copies | None = None,
) -> Evaluation:
    """Compare two measured sets.

    Args:
        metrics: names out of `METRICS` whose extractors were run on both sets.
        weights_sha256: of each extractor's weights.
        seed: of the intervals.
        copies: what a search in the training set found; None looks among the real clips.

    Raises:
        SoundreelError: fewer clips in a set than intervals need.
    """
    check_counts(len(real.names), len(generated.names))
    return Evaluation(
        metrics=tuple(
            _metric(METRICS[name], real, generated, weights_sha256, seed) for name in metrics
        ),
        sync_real=_sync(real),
        sync_generated=_sync(generated),
        copies=copies_among_real(real, generated) if copies is None else copies,
        num_real=len(real.names),
        num_generated=len(generated.names),
        skipped_real=tuple(real.skipped),
        skipped_generated=tuple(generated.skipped),
        warnings=tuple(_warnings(real, generated, metrics)),
        provenance=provenance,
    )


def check_counts(num_real: int, num_generated: int) -> None:
    """Raise `SoundreelError` if a set has fewer clips than the bootstrap intervals need."""
    for name, count in (("REF", num_real), ("GEN", num_generated)):
        if count < MIN_CLIPS:
            raise SoundreelError(
                f"{name} has {count} clip{'' if count == 1 else 's'} to measure; intervals need at "
                f"least {MIN_CLIPS}: give more clips"
            )


def _warnings(real: MeasuredSet, generated: MeasuredSet, metrics: Sequence[str]) -> list[str]:
    """Say where the sets are too small or too unequal for their numbers to be compared."""
    found = []
    counts = (len(real.names), len(generated.names))
    if min(counts) < MIN_PER_CLASS:
        found.append(
            f"{min(counts)} clips on a side are few: intervals are rough below {MIN_PER_CLASS}"
        )
    frechet = [METRICS[name] for name in metrics if METRICS[name].distance == "frechet"]
    if frechet and counts[0] != counts[1]:
        found.append(
            f"{counts[1]} generated and {counts[0]} real clips: a Frechet distance is biased by "
            f"the counts, so compare it only with figures of these counts, or draw equal sets "
            f"(--max-clips {min(counts)})"
        )
    for metric in frechet:
        rows = min(len(one.features[metric.extractor]) for one in (real, generated))
        dim = real.features[metric.extractor].shape[1]
        if rows <= dim:
            found.append(
                f"{metric.name}: {rows} rows are too few for the covariance of {dim} features; "
                "compare its value only with figures of the same counts"
            )
    return found


def _metric(
    metric: MetricDefinition,
    real: MeasuredSet,
    generated: MeasuredSet,
    weights_sha256: dict[str, str],
    seed: int,
) -> MetricResult:
    common = sorted(set(real.labels) & set(generated.labels) - {""})
    enough = [
        label
        for label in common
        if min(real.labels.count(label), generated.labels.count(label)) >= MIN_PER_CLASS
    ]
    return MetricResult(
        name=metric.name,
        overall=_estimate(metric, real, generated, None, seed),
        by_class={label: _estimate(metric, real, generated, label, seed) for label in enough},
        weights_sha256=weights_sha256[metric.extractor],
    )


def _estimate(
    metric: MetricDefinition,
    real: MeasuredSet,
    generated: MeasuredSet,
    label: str | None,
    seed: int,
) -> Estimate:
    generator = torch.Generator().manual_seed(seed)
    rows = (
        real.features_of(metric.extractor, label),
        generated.features_of(metric.extractor, label),
    )
    if metric.distance == "frechet":
        estimate = frechet_interval(*rows, generator, num_resamples=NUM_FRECHET_RESAMPLES)
    else:
        estimate = kernel_interval(*rows, generator)
    return Estimate(
        value=metric.factor * estimate.value,
        low=metric.factor * estimate.low,
        high=metric.factor * estimate.high,
        level=estimate.level,
        num_real=estimate.num_real,
        num_fake=estimate.num_fake,
    )


def _sync(measured: MeasuredSet) -> SyncReport:
    by_label: dict[str, list[Sync]] = {}
    for label, sync in zip(measured.labels, measured.sync, strict=True):
        if sync is not None:
            by_label.setdefault(label, []).append(sync)
    every = [sync for found in by_label.values() for sync in found]
    return SyncReport(
        overall=summarise(every) if every else None,
        by_class={k: summarise(found) for k, found in sorted(by_label.items()) if k},
        unmeasured=len(measured.sync) - len(every),
    )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
