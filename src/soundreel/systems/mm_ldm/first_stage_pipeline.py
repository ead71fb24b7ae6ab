"""The first stage alone, from frames and mel images to their latents and back.

`soundreel.load` opens what `soundreel import stable-diffusion` wrote as this: of the networks that
MM-LDM starts from, the KL-VAE is ready to use.
"""

from pathlib import Path
from typing import Any

import torch

from soundreel.audio.griffin_lim import log_mel_to_waveform
from soundreel.audio.mel_image import decode_mel_image, fit_length
from soundreel.checkpoints.store import ModelIndex, save_component, save_model_index, writing_folder
from soundreel.clip import Clip
from soundreel.device import autocast
from soundreel.protocols import with_options
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.import_stable_diffusion import FIRST_STAGE
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.presets import landscape
from soundreel.systems.mm_ldm.settings import fit_clip
from soundreel.systems.mm_ldm.stable_diffusion_folder import KINDS
from soundreel.types import AV

CHUNK = 4  # images of 256x256 pixels at once


class FirstStagePipeline:
    """The KL-VAE at the sizes and rates of MM-LDM's published clips; it generates nothing."""

    class_names: tuple[str, ...] = ()
    conditions: frozenset[str] = frozenset()
    options = None

    def __init__(self, first_stage: KLVAE) -> None:
        published = landscape()
        self.clip, self.mel_image = published.clip, published.mel_image
        self.first_stage = first_stage

    @property
    def device(self) -> torch.device:
        return self.first_stage.to_moments.weight.device

    def generate(self, **request: Any) -> list[Clip]:
        """Raise `SoundreelError`: encoders and generator are to be trained first."""
        return with_options(self.options, request)

    def to(self, device: torch.device | str) -> "FirstStagePipeline":
        """Move the network; returns the pipeline itself."""
        self.first_stage.to(device)
        return self

    def save(self, folder: Path) -> None:
        """Write the first stage as a model folder, whole or not at all."""
        index = ModelIndex(system="mm-ldm", components={FIRST_STAGE: KINDS[FIRST_STAGE]})
        with writing_folder(Path(folder)) as temporary:
            save_component(temporary, FIRST_STAGE, self.first_stage, self.first_stage.config)
            save_model_index(temporary, index)

    @torch.no_grad()
    def encode(self, clip: Clip) -> AV:
        """Return scaled posterior means of the clip's first window, a batch of one.

        Returns:
            video `1 frame latent_channel height/8 width/8`, audio `1 latent_channel height/8
            width/8` of the mel image; what the clip lacks is absent.

        Raises:
            SoundreelError: the clip is shorter than a window.
        """
        av = fit_clip(clip, self.clip, "center").to_av(self.clip)
        images, latents = clip_images(av, self.mel_image), AV(None, None)
        with autocast(self.device, "auto"):
            if images.video is not None:
                frames = images.video.to(self.device)
                video = self.first_stage.encode_frames(frames, chunk=CHUNK)
                latents = latents.replace("video", video)
            if images.audio is not None:
                audio = self.first_stage.encode(images.audio.to(self.device))
                latents = latents.replace("audio", audio)
        return latents.map(torch.Tensor.float)

    @torch.no_grad()
    def decode(self, latents: AV, *, seed: int = 0) -> list[Clip]:
        """Return a clip for each row of latents; sound by Griffin-Lim, nothing depends on the
        seed."""
        video = audio = None
        with autocast(self.device, "auto"):
            if latents.video is not None:
                video = self.first_stage.decode_frames(latents.video, chunk=CHUNK)
                video = video.float().clamp(-1, 1).cpu()
            if latents.audio is not None:
                audio = self.first_stage.decode(latents.audio).float()
        if audio is not None:  # outside of mixed precision: quiet parts need all bits
            log_mel = decode_mel_image(audio, self.mel_image)
            waveform = log_mel_to_waveform(log_mel, self.mel_image.mel).cpu()
            audio = fit_length(waveform, self.clip.num_samples)[:, None]
        return Clip.from_av(AV(video, audio), self.clip.frame_rate, self.clip.sample_rate)

    def reconstruct(self, clip: Clip) -> Clip:
        """Return the clip's first window as the first stage keeps it.

        Raises:
            SoundreelError: the clip is shorter than a window.
        """
        return self.decode(self.encode(clip))[0]
