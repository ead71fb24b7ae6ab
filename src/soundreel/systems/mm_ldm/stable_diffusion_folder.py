"""Stable Diffusion v1 files to a folder of the networks that MM-LDM starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from soundreel.checkpoints.errors import CheckpointError, listed
from soundreel.checkpoints.import_torch import read_tensors
from soundreel.checkpoints.store import (
    ModelIndex,
    save_component,
    save_model_index,
    writing_folder,
)
from soundreel.systems.mm_ldm.import_stable_diffusion import (
    DECODER,
    FIRST_STAGE,
    load_kl_vae,
    load_unet,
    with_latent_of,
)
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoder, SignalDecoderConfig

KINDS = {FIRST_STAGE: "kl-vae", DECODER: "mm-ldm-signal-decoder"}
# Names by which each network is known, in the layouts of CompVis and of diffusers.
_MARKS = {
    FIRST_STAGE: ("first_stage_model.encoder.", "encoder.down.", "encoder.down_blocks."),
    DECODER: ("model.diffusion_model.", "input_blocks.", "down_blocks."),
}
# In a full checkpoint both have a prefix, and the text encoder and averages lie beside them.
_FULL_CHECKPOINT = ("first_stage_model.", "model.diffusion_model.")


@dataclass(frozen=True, kw_only=True)
class StableDiffusionSizes:
    """Sizes of the networks; the defaults are Stable Diffusion v1's.

    The channels of the first stage's latent are read off its file.
    """

    first_stage: KLVAEConfig = field(default_factory=KLVAEConfig)
    decoder: SignalDecoderConfig = field(default_factory=SignalDecoderConfig)


def import_stable_diffusion(
    files: Sequence[Path], target: Path, sizes: StableDiffusionSizes | None = None
) -> list[str]:
    """Write the first stage, the U-Net, or both, whichever the files hold.

    The layers that MM-LDM adds to the U-Net start from their own initialisation (seed 0).

    Returns:
        One line per network (file, component, parameters), and one per file of which parts such as
        the text encoder were left out.

    Raises:
        CheckpointError: a file is damaged, unsafe, of another size, holds neither network, or there
            are two of a kind. Nothing is written then.
    """
    sizes = sizes or StableDiffusionSizes()
    lines: dict[str, str] = {}
    left_out: list[str] = []
    with writing_folder(target) as folder:
        for path in files:
            keys = list(read_tensors(path))
            found = [
                name for name, marks in _MARKS.items() if any(k.startswith(marks) for k in keys)
            ]
            if not found:
                raise CheckpointError(
                    f"{path}: neither Stable Diffusion's autoencoder nor its U-Net is in it"
                )
            is_full = any(key.startswith(_FULL_CHECKPOINT) for key in keys)
            rest = [key for key in keys if is_full and not key.startswith(_FULL_CHECKPOINT)]
            if rest:
                parts = sorted({key.split(".")[0] for key in rest})
                left_out.append(f"{path}: left out {len(rest)} tensors of {listed(parts)}")
            for name in found:
                if name in lines:
                    raise CheckpointError(f"{path}: holds a second {KINDS[name]}; give one of each")
                network = _loaded(name, path, sizes)
                save_component(folder, name, network, network.config)
                count = sum(p.numel() for p in network.parameters())
                lines[name] = f"{path} -> {target / name}: {count:,} parameters"
        if not lines:
            raise CheckpointError("no checkpoint given; name at least one file")
        index = ModelIndex(system="mm-ldm", components={name: KINDS[name] for name in lines})
        save_model_index(folder, index)
    return [*lines.values(), *left_out]


def _loaded(name: str, path: Path, sizes: StableDiffusionSizes) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == FIRST_STAGE:
            first_stage = KLVAE(with_latent_of(sizes.first_stage, path))
            load_kl_vae(first_stage, path)
            return first_stage
        decoder = SignalDecoder(sizes.decoder)
        load_unet(decoder, path)
        return decoder
