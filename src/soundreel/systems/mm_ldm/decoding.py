"""Decoding perceptual latents to first-stage latents: guided diffusion of a clip's images."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from soundreel.diffusion.denoiser import Callback, Denoiser
from soundreel.diffusion.noise import NoiseSource
from soundreel.diffusion.schedules import Schedule
from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.signal_decoder import DecoderCondition
from soundreel.systems.mm_ldm.solver import LatentSampler, solve
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Settings of decoding latents; the defaults are MM-LDM's for Landscape and AIST++.

    Args:
        num_steps: steps of the sampler.
        sampler: see `solver.LATENT_SAMPLERS`.
        video_guidance_scale, audio_guidance_scale: 1 turns guidance off.
        shared_frame_noise: all frames of a clip start from one noise, which keeps them consistent.
        frame_chunk: frames denoised at once; bounds memory, changes nothing else.
    """

    num_steps: int = 50
    sampler: LatentSampler = "ddim"
    video_guidance_scale: float = 2.5
    audio_guidance_scale: float = 2.5
    shared_frame_noise: bool = False
    frame_chunk: int = 16

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.frame_chunk < 1:
            raise SoundreelError(
                f"num_steps and frame_chunk must be positive, got {self.num_steps} and "
                f"{self.frame_chunk}"
            )


def starting_noise(
    autoencoder: MultiModalAutoencoder,
    batch_size: int,
    num_frames: int,
    noise: NoiseSource,
    config: DecodingConfig,
) -> AV:
    """Return noise that decoding starts from, on the autoencoder's device."""
    video, audio = autoencoder.config.video_encoder, autoencoder.config.audio_encoder
    frames = 1 if config.shared_frame_noise else num_frames
    empty = autoencoder.video_prompt.new_empty
    drawn = noise(
        AV(
            empty(batch_size, frames, video.image_channels, video.image_size, video.image_size),
            empty(batch_size, audio.image_channels, *audio.image_shape),
        )
    )
    return AV(drawn["video"].expand(-1, num_frames, -1, -1, -1).contiguous(), drawn.audio)


@torch.no_grad()
def decode(
    autoencoder: MultiModalAutoencoder,
    latent: AV,
    xt: AV,
    schedule: Schedule,
    config: DecodingConfig,
    *,
    label: Int[Tensor, " batch"] | None = None,
    semantic: AV | None = None,
    callback: Callback | None = None,
) -> AV:
    """Return first-stage latents of all frames and of the mel image.

    Args:
        latent: perceptual latents z_v, z_a. Where one modality is known, its true latent.
        xt: starting noise, see `starting_noise`; a modality absent from it is not decoded.
        schedule: the training chain.
        label: class numbers; by default predicted from the latents.
        semantic: semantic grids in place of the latents' own.
        callback: after each step of each chunk of frames.

    Source:
        MM-LDM, appendix 1.2.
    """
    num_frames = 1 if xt.video is None else xt.video.shape[1]
    index = torch.arange(num_frames, device=latent.device) / num_frames
    frame_index = index.expand(latent.batch_size, -1)
    videos, audio = [], None
    for first in range(0, num_frames, config.frame_chunk):
        chunk = slice(first, first + config.frame_chunk)
        part = AV(None if xt.video is None else xt.video[:, chunk], None if first else xt.audio)
        condition = autoencoder.condition(
            latent, frame_index[:, chunk], label=label, semantic=semantic
        )
        done = solve(
            guided_denoiser(autoencoder, condition, frame_index[:, chunk], config),
            part,
            schedule,
            sampler=config.sampler,
            num_steps=config.num_steps,
            prediction_type=autoencoder.config.prediction_type,
            callback=callback,
        )
        videos.append(done.video)
        audio = done.audio if first == 0 else audio
    return AV(None if xt.video is None else torch.cat(videos, dim=1), audio)


def guided_denoiser(
    autoencoder: MultiModalAutoencoder,
    condition: DecoderCondition,
    frame_index: Float[Tensor, "batch frame"],
    config: DecodingConfig,
) -> Denoiser:
    """Return null + scale * (conditional - null) per modality; one pass less where both scales
    are 1."""
    scales = {"video": config.video_guidance_scale, "audio": config.audio_guidance_scale}
    conditional = _denoiser(autoencoder, condition)
    if all(scale == 1.0 for scale in scales.values()):
        return conditional
    null = _denoiser(autoencoder, autoencoder.null_condition(frame_index))

    def guided(xt: AV, timestep: Tensor) -> AV:
        with_condition, without = conditional(xt, timestep), null(xt, timestep)
        return AV(
            *(
                None
                if xt_part is None
                else without[name] + scales[name] * (with_condition[name] - without[name])
                for name, xt_part in (("video", xt.video), ("audio", xt.audio))
            )
        )

    return guided


def _denoiser(
    autoencoder: MultiModalAutoencoder, condition: DecoderCondition
) -> Callable[[AV, Tensor], AV]:
    def denoise(xt: AV, timestep: Tensor) -> AV:
        told = replace(
            condition,
            video_features=None if xt.video is None else condition.video_features,
            audio_features=None if xt.audio is None else condition.audio_features,
        )
        frames = None if xt.video is None else timestep[:, None].expand(xt.video.shape[:2])
        return autoencoder.decoder(xt, AV(frames, timestep), told)

    return denoise
