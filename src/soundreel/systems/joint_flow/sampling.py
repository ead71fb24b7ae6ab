"""Sampling latent groups: every task is a vector of noise levels, one for each modality and group.

What is given stays at a low level, what is to be made starts at 1. A film is made window by window:
part of a window is the history of the one before, the rest is new.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from soundreel.device import autocast
from soundreel.diffusion.flow import (
    correlated_noise,
    flow_sampler,
    interpolate,
    level_path,
    step_levels,
)
from soundreel.systems.joint_flow.config import JointFlowOptions
from soundreel.systems.joint_flow.guidance import Guidance
from soundreel.systems.joint_flow.transformer import MODALITIES, JointTransformer
from soundreel.types import AV

GIVEN = 0.03
"""Noise level of what is given."""
HISTORY = 0.08
"""Noise level of the past that is gone on from, made before or given."""
LASTING_S = 3.0
"""Seconds for which a number of the layout must last for its noise not to be calmed: by those that
do clips differ, by the others they flicker."""


class GroupNoise:
    """Coloured noise of several clips, group after group; a clip's depends on its seed alone."""

    def __init__(self, seeds: Sequence[int], transformer: JointTransformer) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._correlation = transformer.correlation
        self._last: AV | None = None

    def next(self, num_groups: int) -> AV:
        """Return the noise of the next groups, `batch group token dim` each."""
        groups = [self._white() for _ in range(num_groups)]
        white = groups[0].map(lambda *x: torch.stack(x, dim=1), *groups[1:])
        noise = correlated_noise(white, self._correlation, self._last)
        self._last = noise.map(lambda x: x[:, -1])
        return noise

    def _white(self) -> AV:
        """Draw a group of every clip, its video before its audio, on the CPU."""
        rows = [
            [torch.randn(r.shape, generator=generator) for r in self._correlation.tensors]
            for generator in self._generators
        ]
        drawn = AV(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
        return drawn.to(self._correlation.device)


@torch.no_grad()
def sample_groups(
    transformer: JointTransformer,
    known: AV,
    level: AV,
    noise: AV,
    label: Int[Tensor, " batch"],
    options: JointFlowOptions,
    callback: Callable[[int, int], None] | None = None,
) -> AV:
    """Return a window whose groups at level 1 are made and whose others are as they are known.

    Args:
        known: scaled latents, `batch group token dim` each; without effect at level 1.
        level: noise level that each group is given at, `batch group` each.
        noise: coloured, shaped as `known`.
        label: class numbers; `num_classes` stands for any, which nothing is guided towards.
    """
    end = level.map(lambda t: torch.where(t < 1, t, 0.0))
    made = [m for m in MODALITIES if bool((level[m] == 1).any())]
    levels = levels_of_steps(made, options)
    path = level_path(level, end, levels)
    guidance = Guidance(transformer, label, noise, levels, made, options)
    # The flow of the class's own normal distribution is followed exactly: see `flow_sampler`.
    mean, deviation = transformer.prior(label)
    start = interpolate(known - mean, calmed(noise, level, options, transformer), level)
    with autocast(label.device, options.precision):  # around all steps: weights are cast once
        result = flow_sampler(guidance, start, path, deviation, callback=callback) + mean
    return result.map(
        lambda x, old, t: torch.where((t < 1)[:, :, None, None], old, x), known, level
    )


def levels_of_steps(made: list[str], options: JointFlowOptions) -> dict[str, list[float]]:
    """Return each modality's noise levels: where both are made, sound is `sound_lead` ahead."""
    lead = options.sound_lead if len(made) > 1 else 0.0
    spans = {"video": (lead / (1 + lead), 1.0), "audio": (0.0, 1 / (1 + lead))}
    return {m: step_levels(options.num_steps, options.shift, span=spans[m]) for m in MODALITIES}


def calmed(noise: AV, level: AV, options: JointFlowOptions, transformer: JointTransformer) -> AV:
    """Return the noise with that of new pictures made calmer.

    Detail is multiplied by `detail_noise`; a number of the layout by `layout_noise`, or the less
    the more of it is left after `LASTING_S`.
    """
    video = noise["video"].clone()
    new = (level["video"] == 1)[:, :, None, None]
    left = transformer.correlation["video"][-1] ** (LASTING_S / transformer.config.group_s)
    layout = options.layout_noise + (1 - options.layout_noise) * left
    video[:, :, :-1] *= torch.where(new, options.detail_noise, 1.0)
    video[:, :, -1:] *= torch.where(new, layout, 1.0)
    return noise.replace("video", video)


def film_groups(
    transformer: JointTransformer,
    seeds: Sequence[int],
    label: Int[Tensor, " batch"],
    options: JointFlowOptions,
    *,
    window: int,
    past: AV | None = None,
    given: Callable[[int], AV] | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> Iterator[AV]:
    """Make groups for ever, a window at a time; at most half of a window is history.

    A window's place and noise depend on what came before it alone, so a longer film begins like a
    shorter one bit for bit.

    Args:
        seeds: one for each clip.
        window: groups of a window.
        past: scaled groups to go on from, of which the last `window // 2` are used; a modality that
            is absent is made for them as well.
        given: returns so many further scaled groups of one modality, known from the film's first
            new group on.

    Yields:
        Scaled groups, `batch group token dim` each, without those of the past.
    """
    noise = GroupNoise(seeds, transformer)
    longest = window // 2
    history, before, absent = None, None, []
    if past is not None:
        before = noise.next(min(past.tensors[0].shape[1], longest))
        absent = [m for m in MODALITIES if m not in past.present]
        history = before.map(torch.zeros_like)
        for modality in past.present:
            history = history.replace(modality, past[modality][:, -longest:])
    while True:
        kept = 0 if history is None else history.tensors[0].shape[1]
        fresh = noise.next(window - kept)
        whole = _after(before, fresh)
        known = _after(history, fresh.map(torch.zeros_like))
        level = whole.map(lambda x, k=kept: _levels(x, k))
        for modality in absent:
            level[modality].fill_(1.0)
        absent = []
        if given is not None:
            known, level = _with_given(known, level, given(window - kept))
        made = sample_groups(transformer, known, level, whole, label, options, callback)
        yield made.map(lambda x, k=kept: x[:, k:])
        history, before = (pair.map(lambda x: x[:, -longest:]) for pair in (made, whole))


def _after(before: AV | None, after: AV) -> AV:
    if before is None:
        return after
    return before.map(lambda x, y: torch.cat([x, y], dim=1), after)


def _levels(like: Tensor, kept: int) -> Tensor:
    """Return the level of the history for so many groups, then 1."""
    level = like.new_ones(like.shape[:2])
    level[:, :kept] = HISTORY
    return level


def _with_given(known: AV, level: AV, given: AV) -> tuple[AV, AV]:
    """Put what is known of one modality in place; the history of it stays what it was."""
    (modality,) = given.present
    kept = known[modality].shape[1] - given[modality].shape[1]
    filled = torch.cat([known[modality][:, :kept], given[modality]], dim=1)
    return known.replace(modality, filled), level.replace(
        modality, torch.full_like(level[modality], GIVEN)
    )


def fill_groups(
    transformer: JointTransformer,
    seeds: Sequence[int],
    label: Int[Tensor, " batch"],
    options: JointFlowOptions,
    *,
    known: AV,
    missing: dict[str, range],
    callback: Callable[[int, int], None] | None = None,
) -> AV:
    """Make the missing groups of a window from those before and after them.

    Args:
        known: scaled groups, `batch group token dim` each.
        missing: which groups of a modality are made.
    """
    noise = GroupNoise(seeds, transformer).next(known["video"].shape[1])
    level = known.map(lambda x: x.new_full(x.shape[:2], GIVEN))
    for modality in MODALITIES:
        gap = missing.get(modality, range(0))
        level[modality][:, gap.start : gap.stop] = 1.0
    return sample_groups(transformer, known, level, noise, label, options, callback)
