"""Guidance by a given modality: by our rule, or by the one that was published."""

from soundreel.diffusion.config import DiffusionConfig
from soundreel.diffusion.denoiser import Callback, Denoiser, Guide
from soundreel.diffusion.noise import NoiseSource
from soundreel.diffusion.schedules import respace
from soundreel.diffusion.zero_shot import (
    gradient_guide,
    official_weight,
    replacement_guide,
    zero_shot_ddpm,
)
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.options import MMDiffusionOptions
from soundreel.types import AV

OFFICIAL_BATCH = {"video": 2, "audio": 1}
"""Batch sizes of MM-Diffusion's scripts by the given modality, which its gradient is divided by."""


def check_rule(chosen: MMDiffusionOptions, own: MMDiffusionOptions, *, is_given: bool) -> None:
    """Check that what is chosen about the rule of guidance has an effect.

    Args:
        own: the model's defaults.
        is_given: a whole modality is given.

    Raises:
        SoundreelError: the official rule is asked for where it means nothing, or a weight is that
            of the other rule.
    """
    if chosen.guidance_rule != "official":
        if chosen.official_scale != own.official_scale:
            raise SoundreelError(
                "official_scale is of guidance_rule official; choose that, or give guidance_weight"
            )
        return
    if not is_given:
        raise SoundreelError(
            "guidance_rule official steers by a whole given video or audio: give one of them, or"
            " leave the rule out"
        )
    if chosen.sampler != "ddpm":
        raise SoundreelError(
            f"guidance_rule official is defined for sampler ddpm (published with 1000 steps), got "
            f"{chosen.sampler}; choose that sampler, or guidance_rule reconstruction"
        )
    if chosen.guidance_weight != own.guidance_weight:
        raise SoundreelError(
            "guidance_weight is of guidance_rule reconstruction; give official_scale in its place"
        )


def whole_guide(given: AV, noise: AV, weight: float) -> Guide | None:
    """Return the guide of the rule reconstruction by a whole given modality; None where none is."""
    if not given.present:
        return None
    if weight == 0:
        return replacement_guide(given, noise)
    return gradient_guide(given, noise, weight=weight)


def sample_official(
    denoiser: Denoiser,
    given: AV,
    xt: AV,
    noise: NoiseSource,
    options: MMDiffusionOptions,
    diffusion: DiffusionConfig,
    callback: Callback | None,
) -> AV:
    """Sample around a given modality as MM-Diffusion's scripts do, with their gradient scale.

    Args:
        xt: the noise that both modalities start from.

    Source:
        Ruan et al. 2023, section 3.4; the scale as in the code, its factor of 2^20 included.
    """
    (name,) = given.present
    weight = official_weight(
        options.official_scale,
        batch_size=OFFICIAL_BATCH[name],
        num_elements=given[name][0].numel(),
        half_precision=True,
    )
    return zero_shot_ddpm(
        denoiser,
        xt,
        respace(diffusion.build(), options.num_steps),
        given=given,
        noise=noise,
        weight=weight,
        prediction_type=diffusion.prediction_type,
        callback=callback,
    )
