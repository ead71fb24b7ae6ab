"""Choose the parts of the multi-modal autoencoder that learn in a phase of stage 2, and their
rates."""

from collections.abc import Sequence

from torch import nn

from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.perceptual_encoders import TELLING_PARTS

SEMANTIC_PARTS = ("video_projector", "audio_projector", "class_head", "contrastive_head")
CONTEXT_MAPS = ("decoder.video_context", "decoder.audio_context")


def semantic_shares(model: MultiModalAutoencoder, share: float) -> dict[str, float]:
    """Return the share of the learning rate that projectors and heads learn at, by name."""
    present = {name for name, _ in model.named_children()}
    return {name: share for name in SEMANTIC_PARTS if name in present}


def decoder_phase_parts(model: MultiModalAutoencoder, *, on_axes: bool) -> list[nn.Module]:
    """Return what learns while the latents stay as they are.

    The decoder, projectors and heads; on the generator's axes also what tells the decoder of a
    latent, because there it has to say more than the latent's linear estimate.
    """
    names = [name for name, _ in model.named_children() if name in SEMANTIC_PARTS]
    parts = [model.decoder, *(model.get_submodule(name) for name in names)]
    if on_axes:
        for encoder in (model.video_encoder, model.audio_encoder):
            parts += [part for name, part in encoder.named_children() if name in TELLING_PARTS]
    return parts


def open_parts(model: MultiModalAutoencoder, parts: Sequence[nn.Module]) -> None:
    """Let only some parts of the autoencoder learn."""
    model.requires_grad_(False)
    for part in parts:
        part.requires_grad_(True)
    if model.config.decoder.freeze_time_embedding:
        model.decoder.time_embed.requires_grad_(False)
