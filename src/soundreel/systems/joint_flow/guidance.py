"""Guidance: towards the class, and of pictures and sound towards each other."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import torch
from jaxtyping import Int
from torch import Tensor

from soundreel.diffusion.flow import interpolate, linear_velocity, remainder
from soundreel.diffusion.guidance import guided_output
from soundreel.systems.joint_flow.config import JointFlowOptions
from soundreel.systems.joint_flow.flow_objective import EDGE
from soundreel.systems.joint_flow.transformer import MODALITIES, JointTransformer
from soundreel.types import AV

SYNC_LEVELS = (0.5, 0.95)
"""Noise levels between which pictures and sound are led towards each other, see `Guidance`."""
OTHER = dict(zip(MODALITIES, reversed(MODALITIES), strict=True))
"""The other modality."""


class Guidance:
    """Answers of the transformer, led away from those for any class or without the other modality.

    At the noise levels of `SYNC_LEVELS` (the mean of what is made), where it is decided what
    happens when, each modality is led away from the answer that sees noise in place of the other;
    above, from the answer for any class; below, where neither changes much, from none. With a
    `sync_scale` of 1 it is the class at all levels.

    Args:
        noise: coloured, of unit variance, `batch group token dim` each.
        levels: noise level of each modality at each step.
        made: the modalities of which something is made.

    Source:
        Ho and Salimans 2022, equation 6, for the class; Bao et al. 2023 (UniDiffuser), for
        noise as the answer without the other modality; Kynkaanniemi et al. 2024 for an
        interval of noise levels.
    """

    def __init__(
        self,
        transformer: JointTransformer,
        label: Int[Tensor, " batch"],
        noise: AV,
        levels: Mapping[str, Sequence[float]],
        made: list[str],
        options: JointFlowOptions,
    ) -> None:
        self._transformer, self._label, self._noise = transformer, label, noise
        self._made, self._options = made, options
        self._levels = [fmean(step) for step in zip(*(levels[m] for m in made), strict=True)]
        self._any = torch.full_like(label, transformer.config.num_classes)
        self._by_class = options.guidance_scale != 1 and not torch.equal(label, self._any)
        self._prior, self._any_prior = transformer.prior(label), transformer.prior(self._any)

    def __call__(self, scaled: AV, at: AV, step: int) -> AV:
        """Return the answer to x_t at unit variance, see `flow_sampler`."""
        at = at.map(lambda t: t.clamp(EDGE, 1 - EDGE))
        (low, high), level = SYNC_LEVELS, self._levels[step]
        if self._options.sync_scale == 1 or level > high:
            return (self._towards_class if self._by_class else self._plain)(scaled, at)
        return (self._towards_each_other if level >= low else self._plain)(scaled, at)

    def _plain(self, scaled: AV, at: AV) -> AV:
        return self._transformer(scaled, at, self._label)

    def _answers(self, inputs: list[AV], levels: list[AV], labels: list[Tensor]) -> list[AV]:
        """Return the answers to several inputs, taken as one batch."""
        answers = self._transformer(AV.cat(inputs), AV.cat(levels), torch.cat(labels))
        count = len(self._label)
        return [answers.rows(slice(k * count, (k + 1) * count)) for k in range(len(inputs))]

    def _towards_each_other(self, scaled: AV, at: AV) -> AV:
        inputs, levels = [scaled], [at]
        for other in (OTHER[modality] for modality in self._made):
            inputs.append(scaled.replace(other, self._noise[other].to(scaled[other])))
            levels.append(at.replace(other, torch.full_like(at[other], 1 - EDGE)))
        told, *alone = self._answers(inputs, levels, [self._label] * len(inputs))
        untold = told
        for modality, answer in zip(self._made, alone, strict=True):
            untold = untold.replace(modality, answer[modality])
        scale = self._options.sync_scale
        return guided_output(told, untold, video_scale=scale, audio_scale=scale)

    def _towards_class(self, scaled: AV, at: AV) -> AV:
        # The answers are to errors of two linear estimates: both are brought to that of the class.
        own, other = (
            linear_velocity(at, prior.deviation) for prior in (self._prior, self._any_prior)
        )
        xt, apart = scaled / own.input_scale, self._prior.mean - self._any_prior.mean
        shifted = interpolate(apart, xt.map(torch.zeros_like), at) + xt
        inputs = [scaled, shifted * other.input_scale]
        asked, unasked = self._answers(inputs, [at, at], [self._label, self._any])
        velocity = other.slope * shifted + other.error * unasked + apart
        scale = self._options.guidance_scale
        return guided_output(
            asked, remainder(velocity, xt, own), video_scale=scale, audio_scale=scale
        )
