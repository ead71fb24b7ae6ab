"""Classifier-free guidance of each modality.

Zero-shot conditions of joint models are in `zero_shot`.
"""

from jaxtyping import Int
from torch import Tensor

from soundreel.diffusion.denoiser import Denoiser, Prediction, as_prediction
from soundreel.types import AV


def classifier_free(
    conditional: Denoiser, unconditional: Denoiser, *, video_scale: float, audio_scale: float
) -> Denoiser:
    """Return a denoiser that answers null + scale (conditional - null), modality by modality.

    Where both scales are 1 it is the conditional denoiser itself, and the other is never called. To
    run both as one batch, call `guided_output` in a denoiser of your own.

    Args:
        video_scale: 1 follows the condition as trained, 0 ignores it, more exaggerates it.
        audio_scale: likewise.

    Source:
        Ho and Salimans 2022, equation 6; MM-LDM uses one scale for each modality.
    """
    if video_scale == audio_scale == 1:
        return conditional

    def denoiser(xt: AV, timestep: Int[Tensor, " batch"]) -> Prediction:
        with_condition = as_prediction(conditional(xt, timestep))
        null = as_prediction(unconditional(xt, timestep))
        guided = guided_output(
            with_condition.mean_output,
            null.mean_output,
            video_scale=video_scale,
            audio_scale=audio_scale,
        )
        return Prediction(guided, with_condition.variance_output)

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
