"""Classifier-free guidance of each modality.

Zero-shot conditions of joint models are in `zero_shot`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from soundreel.diffusion.denoiser import Denoiser, Prediction, as_prediction
from soundreel.types import AV

Branches = Callable[[AV, Int[Tensor, " row"], Bool[Tensor, " row"]], AV | Prediction]
"""`network(xt, timestep, kept)`: rows that are not kept answer without the condition."""


def classifier_free(network: Branches, *, video_scale: float, audio_scale: float) -> Denoiser:
    """Return a denoiser that answers null + scale (conditional - null), modality by modality.

    Both branches go through the network as one batch, the conditional rows first: of a small
    network that takes less time than two batches. Where both scales are 1 there is no null branch.

    Args:
        video_scale: 1 follows the condition as trained, 0 ignores it, more exaggerates it.
        audio_scale: likewise.

    Source:
        Ho and Salimans 2022, equation 6; MM-LDM uses one scale for each modality.
    """

    def denoiser(xt: AV, timestep: Int[Tensor, " batch"]) -> Prediction:
        kept = torch.ones_like(timestep, dtype=torch.bool)
        if video_scale == audio_scale == 1:
            return as_prediction(network(xt, timestep, kept))
        batch, both = len(timestep), torch.cat([kept, ~kept])
        answer = as_prediction(network(AV.cat([xt, xt]), timestep.repeat(2), both))
        guided = guided_output(
            answer.mean_output.rows(slice(batch)),
            answer.mean_output.rows(slice(batch, None)),
            video_scale=video_scale,
            audio_scale=audio_scale,
        )
        variance = answer.variance_output
        return Prediction(guided, None if variance is None else variance.rows(slice(batch)))

    return denoiser


def guided_output(
    conditional: AV, unconditional: AV, *, video_scale: float, audio_scale: float
) -> AV:
    """Return null + scale (conditional - null), modality by modality."""
    guided = unconditional
    for modality, scale in (("video", video_scale), ("audio", audio_scale)):
        if modality in unconditional.present:
            null = unconditional[modality]
            guided = guided.replace(modality, null + scale * (conditional[modality] - null))
    return guided
