"""Start MM-LDM from Stable Diffusion v1 files: its first stage and its U-Net.

Two layouts are recognised by their names: that of the original CompVis release (also inside a full
checkpoint) and that of diffusers (`vae/` and `unet/` folders' files).
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.import_torch import read_tensors
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.official_keys import (
    KL_VAE_COMPVIS,
    from_official,
    signal_decoder_rules,
)
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoder
from soundreel.systems.mm_ldm.stable_diffusion_keys import (
    kl_vae_diffusers_rules,
    unet_diffusers_rules,
)

# Layers that MM-LDM or we added to the U-Net; they start from their own initialisation.
OWN_LAYERS = (
    "video_content",
    "audio_content",
    "video_context",
    "audio_context",
    "class_embed",
    "shortcut",
)
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_kl_vae(model: KLVAE, path: Path) -> None:
    """Load a Stable Diffusion first stage of either layout.

    Raises:
        CheckpointError: the file cannot be read, or holds a network of another size.
    """
    tensors = _under(read_tensors(path), "first_stage_model.")
    tensors = {k: v for k, v in tensors.items() if not k.startswith(("loss.", "model_ema."))}
    if any(key.startswith("encoder.down_blocks.") for key in tensors):
        tensors = {_current_attention(key): value for key, value in tensors.items()}
        rules = kl_vae_diffusers_rules(len(model.config.channel_mult))
    else:
        rules = KL_VAE_COMPVIS
    try:
        state = from_official(model, tensors, rules)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model.load_state_dict(state)


def load_unet(decoder: SignalDecoder, path: Path) -> None:
    """Start the signal decoder from a Stable Diffusion v1 U-Net of either layout.

    MM-LDM's own layers (conditioning maps, class table) and a linear shortcut keep the values they
    have.

    Raises:
        CheckpointError: the file cannot be read, or holds a network of another size.
    """
    tensors = _under(read_tensors(path), "model.diffusion_model.")
    is_diffusers = any(key.startswith("down_blocks.") for key in tensors)
    rules = (unet_diffusers_rules if is_diffusers else signal_decoder_rules)(decoder.config)
    own = {
        key: value for key, value in decoder.state_dict().items() if key.split(".")[0] in OWN_LAYERS
    }
    try:
        state = from_official(decoder, tensors, rules, skip=own)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    decoder.load_state_dict({**state, **own})


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Entries below a prefix; all of them if there are none."""
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return found or dict(tensors)


def _current_attention(key: str) -> str:
    """Names that diffusers gave the first stage's attention before version 0.18."""
    if ".attentions." not in key:
        return key
    *front, layer, kind = key.split(".")
    return ".".join([*front, OLD_ATTENTION.get(layer, layer), kind])
