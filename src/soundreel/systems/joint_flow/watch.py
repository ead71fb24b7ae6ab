"""The watch: is the loss of one modality lower beside its own other half than beside another's?

It says whether synchrony is being learned long before a sample shows it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from soundreel.diffusion.noise import PerSampleNoise, derived_seed
from soundreel.errors import SoundreelError
from soundreel.systems.joint_flow.flow_objective import flow_errors
from soundreel.systems.joint_flow.transformer import MODALITIES, JointTransformer
from soundreel.types import AV

MIDDLE, CLEAN = 0.5, 0.03
"""Noise levels of the modality whose loss is watched, and of the other one."""


class Gap(NamedTuple):
    """A relative difference of losses.

    Attributes:
        mean: 0.1 means: beside another clip's other half the loss is a tenth higher.
        error: its standard error.
    """

    mean: float
    error: float


def partners(label: Int[Tensor, " clip"]) -> Int[Tensor, " clip"]:
    """Return for each clip the next one of its class; -1 for the only clip of a class."""
    partner = torch.full_like(label, -1)
    for value in label.unique():
        members = (label == value).nonzero().flatten()
        if len(members) > 1:
            partner[members] = members.roll(-1)
    return partner


@torch.no_grad()
def watch(
    network: JointTransformer,
    latents: AV,
    label: Int[Tensor, " clip"],
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Gap]:
    """Return the gap of the pictures' and of the sound's loss, by modality.

    Both losses are taken with the same noise. Clips that are alone in their class are left out.

    Args:
        latents: scaled as the network sees them.

    Raises:
        SoundreelError: fewer than two clips of a class.
    """
    partner = partners(label)
    own = (partner >= 0).nonzero().flatten()
    if len(own) < 2:
        raise SoundreelError("the watch needs at least two clips of a class")
    gaps = {}
    for watched, other in (MODALITIES, MODALITIES[::-1]):
        true, false = [], []
        for rows in own.split(batch_size):
            clips = latents.rows(rows)
            swapped = clips.replace(other, latents[other][partner[rows]])
            seeds = [derived_seed(seed, int(row)) for row in rows]
            for losses, pair in ((true, clips), (false, swapped)):
                noise = PerSampleNoise(seeds)  # the same for both
                losses.append(_losses(network, pair, label[rows], watched, noise))
        difference = (torch.cat(false) - torch.cat(true)) / torch.cat(true).mean()
        error = float(difference.std()) / len(difference) ** 0.5
        gaps[watched] = Gap(float(difference.mean()), error)
    return gaps


def _losses(
    network: JointTransformer,
    latents: AV,
    label: Int[Tensor, " batch"],
    watched: str,
    noise: PerSampleNoise,
) -> Float[Tensor, " batch"]:
    """Return the mean error of one modality in the middle of its path, the other nearly clean."""
    shape = latents["video"].shape[:2]
    level = AV(*(latents[m].new_full(shape, MIDDLE if m == watched else CLEAN) for m in MODALITIES))
    errors = flow_errors(network, latents, noise(latents), level, label)
    return errors[watched].flatten(1).mean(1)
