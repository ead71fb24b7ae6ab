"""What is measured between the stages of an MM-LDM run: a latent scale, and fingerprints."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from soundreel.audio.mel_image import MelImageConfig
from soundreel.data.dataset import PreparedDataset
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.signals import first_stage_moments
from soundreel.types import AV


@torch.no_grad()
def unit_scale(network: KLVAE, windows: PreparedDataset, mel: MelImageConfig) -> float:
    """Return the factor that gives the latents of frames and mel images unit standard deviation.

    Frames count as much as mel images, however many there are of either; 64 windows are measured.
    """
    every = max(1, len(windows) // 64)
    device = next(network.parameters()).device
    moments = AV.cat(
        [
            first_stage_moments(windows[i].av.map(lambda x: x[None]).to(device), network, mel)
            for i in range(0, len(windows), every)
        ]
    )
    channels = network.config.latent_channels
    video = moments["video"].unflatten(1, (-1, 2 * channels))[:, :, :channels]
    audio = moments["audio"][:, :channels]
    return float((0.5 * (video.var() + audio.var())).rsqrt())


def fingerprint(
    networks: Sequence[nn.Module], about: dict[str, Any], skip: Sequence[str] = ()
) -> str:
    """Return a hash of networks and of the data they were used on; caches serve these only.

    Args:
        skip: children of the networks that what is cached does not depend on.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for network in networks:
        for name, value in sorted(network.state_dict().items()):
            if name.partition(".")[0] in skip:
                continue
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
