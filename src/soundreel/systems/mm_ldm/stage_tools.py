"""Measure between the stages of an MM-LDM run: a latent scale, and fingerprints."""

import torch

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
