"""`mm-ldm-small` whose mel image keeps its aspect."""

from dataclasses import replace

from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.small_presets import small


def native(base: MMLDMConfig) -> MMLDMConfig:
    """Return a configuration whose mel image has a row for each band and a column for each hop.

    Nothing is scaled; black fills both sides up to multiples of 16 pixels. The adversary of stage
    2, which compares the image with frames, is left out.
    """
    mel = replace(base.mel_image, image_size=0)
    factor = base.first_stage.model.factor
    height, width = (side // factor for side in mel.image_shape)
    model = base.autoencoder.model
    encoder = replace(model.audio_encoder, image_size=height, image_width=width)
    return replace(
        base,
        mel_image=mel,
        autoencoder=replace(base.autoencoder, model=replace(model, audio_encoder=encoder)),
        adversarial=replace(base.adversarial, enabled=False),
    )


def small_native() -> MMLDMConfig:
    """Return `small` with 80 bands by 100 columns in an image of 80 by 112 pixels, not 64 by 64."""
    return native(small())
