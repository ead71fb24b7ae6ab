"""Start MM-LDM from Stable Diffusion v1: its first stage and its U-Net.

They are found in a file, in a folder that `soundreel import stable-diffusion` wrote, in a folder of
diffusers, or in either kind of folder on the Hub. Tensors are recognised by their names: those of
the original CompVis release (also inside a full checkpoint), of diffusers, or ours.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from soundreel.checkpoints.component import CONFIG_FILE, WEIGHTS_FILE, check_state
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.hub import download, is_hub_name
from soundreel.checkpoints.import_torch import read_tensors
from soundreel.checkpoints.store import INDEX_FILE, load_state
from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
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


FIRST_STAGE, DECODER = "first_stage", "signal_decoder"
"""Names of the two networks in a folder that `soundreel import stable-diffusion` wrote."""
_OF_DIFFUSERS = {FIRST_STAGE: "vae", DECODER: "unet"}
_FILES_OF_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def load_kl_vae(model: KLVAE, source: str | Path) -> None:
    """Load a Stable Diffusion first stage.

    Args:
        source: file, folder or Hub name; see above.

    Raises:
        CheckpointError: nothing readable is there, or a network of another size.
    """
    path = weights_file(source, FIRST_STAGE)
    tensors = _tensors(path, "first_stage_model.")
    tensors = {k: v for k, v in tensors.items() if not k.startswith(("loss.", "model_ema."))}
    if tensors.keys() == model.state_dict().keys():
        check_state(model.state_dict(), tensors, str(path))
        model.load_state_dict(tensors)
        return
    if any(key.startswith("encoder.down_blocks.") for key in tensors):
        tensors = {_current_attention(key): value for key, value in tensors.items()}
        rules = kl_vae_diffusers_rules(len(model.config.channel_mult))
    else:
        rules = KL_VAE_COMPVIS
    try:
        state = from_official(model, tensors, rules)
    except SoundreelError as error:
        raise CheckpointError(f"{path}: {error}") from None
    model.load_state_dict(state)


def with_latent_of(config: KLVAEConfig, source: str | Path) -> KLVAEConfig:
    """Return a first stage's configuration with the latent channels that its weights have.

    Raises:
        CheckpointError: nothing readable is there.
    """
    weight = _tensors(weights_file(source, FIRST_STAGE), "first_stage_model.").get(
        "quant_conv.weight"
    )
    if weight is None or weight.dim() < 2:
        return config
    latent, inner = weight.shape[0] // 2, weight.shape[1] // 2
    return replace(config, latent_channels=latent, z_channels=None if inner == latent else inner)


def load_unet(decoder: SignalDecoder, source: str | Path) -> None:
    """Start the signal decoder from a Stable Diffusion v1 U-Net.

    MM-LDM's own layers (conditioning maps, class table) and a linear shortcut keep the values they
    have.

    Args:
        source: file, folder or Hub name; see above.

    Raises:
        CheckpointError: nothing readable is there, or a network of another size.
    """
    path = weights_file(source, DECODER)
    tensors = _tensors(path, "model.diffusion_model.")
    own = {
        key: value for key, value in decoder.state_dict().items() if key.split(".")[0] in OWN_LAYERS
    }
    published = decoder.state_dict().keys() - own.keys()
    if published <= tensors.keys():
        state = {k: tensors[k] for k in published} | own
        check_state(decoder.state_dict(), state, str(path))
        decoder.load_state_dict(state)
        return
    is_diffusers = any(key.startswith("down_blocks.") for key in tensors)
    rules = (unet_diffusers_rules if is_diffusers else signal_decoder_rules)(decoder.config)
    try:
        state = from_official(decoder, tensors, rules, skip=own)
    except SoundreelError as error:
        raise CheckpointError(f"{path}: {error}") from None
    decoder.load_state_dict({**state, **own})


def weights_file(source: str | Path, part: str) -> Path:
    """Return the file that holds a network of Stable Diffusion.

    Args:
        source: that file; a folder of ours or of diffusers (the whole model's or the network's
            own); or the Hub name of one.
        part: `FIRST_STAGE` or `DECODER`.

    Raises:
        CheckpointError: there is no such file.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    name = _OF_DIFFUSERS[part]
    places = (
        f"{part}/{WEIGHTS_FILE}",
        *(f"{name}/{file}" for file in _FILES_OF_DIFFUSERS),
        *_FILES_OF_DIFFUSERS,
    )
    if not path.exists() and is_hub_name(source):
        path = download(str(source), (*places, f"{part}/{CONFIG_FILE}", INDEX_FILE))
    for place in places:
        if (path / place).is_file():
            return path / place
    raise CheckpointError(
        f"{source}: no weights of Stable Diffusion's {name} here; give a file, a folder with"
        f" {', '.join(places[:2])}, or a Hub name such as owner/name"
    )


def _tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a file; of a full checkpoint those below a prefix."""
    if path.name == WEIGHTS_FILE and (path.parent / CONFIG_FILE).is_file():
        return load_state(path.parents[1], path.parent.name)
    return _under(read_tensors(path), prefix)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries below a prefix; all of them if there are none."""
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return found or dict(tensors)


def _current_attention(key: str) -> str:
    """Return the present name of one that diffusers gave attention before version 0.18."""
    if ".attentions." not in key:
        return key
    *front, layer, kind = key.split(".")
    return ".".join([*front, OLD_ATTENTION.get(layer, layer), kind])
