"""First-stage latents for stage 2 of MM-LDM: from pixels, or from a cache of moments."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from soundreel.audio.mel_image import MelImageConfig
from soundreel.data.dataset import PreparedDataset
from soundreel.device import send
from soundreel.diffusion.noise import NoiseSource
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.training.objectives import TrainingBatch
from soundreel.types import AV, LatentSpec


@dataclass(frozen=True, kw_only=True)
class Signals:
    """First-stage latents that one step of stage 2 works on.

    Args:
        key_frames: that the video encoder sees.
        targets: frames and mel image that are denoised.
    """

    key_frames: Float[Tensor, "batch key channel height width"]
    targets: AV


@runtime_checkable
class SignalSource(Protocol):
    """Gives the latents of a batch, and the images to compare decoded ones with."""

    def signals(
        self,
        batch: TrainingBatch,
        key_frames: tuple[int, ...],
        frames: Int[Tensor, "batch frame"],
        noise: NoiseSource,
    ) -> Signals: ...

    def images(self, batch: TrainingBatch, frames: Int[Tensor, "batch frame"]) -> AV: ...


class PixelSource:
    """Encodes the frames a step needs and the mel image, with a frozen first stage.

    Args:
        first_stage: on the batches' device.
        mel: how a waveform becomes an image.
        latent_shape: channel, height, width of a frame's latent.
        sound_shape: of the mel image's; None is alike.
    """

    def __init__(
        self,
        first_stage: KLVAE,
        mel: MelImageConfig,
        latent_shape: tuple[int, int, int],
        sound_shape: tuple[int, int, int] | None = None,
    ) -> None:
        self._first_stage = first_stage
        self._mel = mel
        self._latent_shape = latent_shape
        self._sound_shape = sound_shape or latent_shape

    @torch.no_grad()
    def signals(
        self,
        batch: TrainingBatch,
        key_frames: tuple[int, ...],
        frames: Int[Tensor, "batch frame"],
        noise: NoiseSource,
    ) -> Signals:
        video = batch.av["video"]
        num_keys = len(key_frames)
        chosen = torch.cat([video[:, list(key_frames)], pick_frames(video, frames)], dim=1)
        empty = video.new_empty
        drawn = noise(
            AV(
                empty(len(video), chosen.shape[1], *self._latent_shape),
                empty(len(video), *self._sound_shape),
            )
        )
        latents = self._first_stage.encode_frames(chosen, drawn.video)
        sound = clip_images(AV(None, batch.av["audio"]), self._mel)
        image = self._first_stage.encode(sound["audio"], drawn.audio)
        return Signals(
            key_frames=latents[:, :num_keys].float(),
            targets=AV(latents[:, num_keys:].float(), image.float()),
        )

    def images(self, batch: TrainingBatch, frames: Int[Tensor, "batch frame"]) -> AV:
        sound = clip_images(AV(None, batch.av["audio"]), self._mel)
        return AV(pick_frames(batch.av["video"], frames), sound.audio)


class CachedSource:
    """Draws latents from cached posteriors; see `first_stage_moments`.

    Args:
        first_stage: decodes the latents that stand in for the real images.
    """

    def __init__(self, first_stage: KLVAE) -> None:
        self._first_stage = first_stage

    def signals(
        self,
        batch: TrainingBatch,
        key_frames: tuple[int, ...],
        frames: Int[Tensor, "batch frame"],
        noise: NoiseSource,
    ) -> Signals:
        moments = self._moments(batch.av)
        mean = moments.map(lambda x: x.chunk(2, dim=-3)[0])
        drawn = mean.map(
            lambda centre, x, eps: centre + torch.exp(0.5 * x.chunk(2, dim=-3)[1]) * eps,
            moments,
            noise(mean),
        )
        latents = drawn * self._first_stage.config.latent_scale
        return Signals(
            key_frames=latents["video"][:, list(key_frames)],
            targets=AV(pick_frames(latents["video"], frames), latents.audio),
        )

    @torch.no_grad()
    def images(self, batch: TrainingBatch, frames: Int[Tensor, "batch frame"]) -> AV:
        """Return what the first stage makes of the latents' means, which no decoder can surpass."""
        latents = self.means(batch.av)
        return AV(
            self._first_stage.decode_frames(pick_frames(latents["video"], frames)),
            self._first_stage.decode(latents["audio"]),
        )

    def means(self, cached: AV) -> AV:
        """Return scaled means: video `batch frame channel height width`, audio without the
        frame axis."""
        mean = self._moments(cached).map(lambda x: x.chunk(2, dim=-3)[0])
        return mean * self._first_stage.config.latent_scale

    def _moments(self, cached: AV) -> AV:
        channels = 2 * self._first_stage.config.latent_channels
        video = rearrange(cached["video"].float(), "b (f c) h w -> b f c h w", c=channels)
        return AV(video, cached["audio"].float())


@torch.no_grad()
def first_stage_moments(clips: AV, first_stage: KLVAE, mel: MelImageConfig) -> AV:
    """Return posterior mean and log-variance of every frame and of the mel image.

    Returns:
        video `batch (frame channel) height width`, audio `batch channel height width`, where the
        channels are those of the mean, then those of the log-variance.
    """
    images = clip_images(clips, mel)
    # Overlapping windows share most of their frames: each is encoded once.
    rows = rearrange(images["video"], "b f c h w -> (b f) (c h w)")
    unique, place = rows.unique(dim=0, return_inverse=True)
    frames = unique.reshape(-1, *images["video"].shape[2:])
    moments = torch.cat([_moments(first_stage, part) for part in frames.split(64)])[place]
    video = rearrange(moments, "(b f) c h w -> b (f c) h w", b=clips.batch_size)
    return AV(video, _moments(first_stage, images["audio"]))


@torch.no_grad()
def latents_of_moments(moments: AV, first_stage: KLVAE, autoencoder: MultiModalAutoencoder) -> AV:
    """Return means of z_v and z_a from `first_stage_moments`, without the pictures themselves."""
    means = CachedSource(first_stage).means(moments)
    key_frames = autoencoder.select_key_frames(means["video"])
    return autoencoder.encode(AV(key_frames, means["audio"])).mean


def _moments(
    first_stage: KLVAE, images: Float[Tensor, "image channel height width"]
) -> Float[Tensor, "image moment_channel latent_height latent_width"]:
    posterior = first_stage.posterior(images)
    return torch.cat([posterior.mean, posterior.logvar], dim=1)


def moments_spec(
    first_stage: KLVAE, num_frames: int, image_size: int, mel_shape: tuple[int, int]
) -> LatentSpec:
    """Return shapes of `first_stage_moments`.

    Args:
        mel_shape: height and width of the mel image.
    """
    channels = 2 * first_stage.config.latent_channels
    height, width = (side // first_stage.config.factor for side in mel_shape)
    return LatentSpec(
        video_channels=num_frames * channels,
        video_size=image_size // first_stage.config.factor,
        audio_channels=channels,
        audio_size=height,
        audio_width=0 if width == height else width,
    )


def pick_frames(
    video: Float[Tensor, "batch frame channel height width"], frames: Int[Tensor, "batch chosen"]
) -> Float[Tensor, "batch chosen channel height width"]:
    """Return the chosen frames of each clip."""
    clip = torch.arange(len(video), device=video.device)[:, None]
    return video[clip, send(frames, video.device)]


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
