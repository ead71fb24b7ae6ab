"""Stage 1 of MM-LDM: losses of the image autoencoder on frames and mel images alike."""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from soundreel.audio.mel_image import MelImageConfig
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.errors import SoundreelError
from soundreel.nn.perceptual_loss import PerceptualLoss
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.patch_discriminator import (
    PatchDiscriminator,
    hinge_discriminator_loss,
)
from soundreel.training.objectives import Objective, TrainingBatch, TrainingLoss
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class FirstStageLossConfig:
    """Weights; the defaults are latent diffusion's, in units of the mean error per pixel value.

    Args:
        reconstruction: mean absolute ("l1") or mean squared ("mse") error.
        kl_weight: of the KL divergence summed over the latent, divided by the image's elements,
            which is its weight in a loss summed over all of them.
        adversarial_weight: of the patch adversary's term, before it is balanced.
        adversarial_start: samples seen before the adversary joins.
        num_frames: frames per clip and step, drawn with replacement, besides the mel image.
        freeze_encoder: keep the latent space and tune the decoder alone.
    """

    reconstruction: Literal["l1", "mse"] = "l1"
    perceptual_weight: float = 1.0
    kl_weight: float = 1e-6
    adversarial_weight: float = 0.5
    adversarial_start: int = 800_080
    num_frames: int = 2
    freeze_encoder: bool = False

    def __post_init__(self) -> None:
        if self.reconstruction not in ("l1", "mse"):
            raise SoundreelError(f"reconstruction is 'l1' or 'mse', got {self.reconstruction!r}")
        if self.num_frames < 1:
            raise SoundreelError(f"num_frames must be positive, got {self.num_frames}")


def freeze_encoder(model: KLVAE) -> None:
    """Leave only the decoder trainable."""
    model.encoder.requires_grad_(False)
    model.to_moments.requires_grad_(False)
    if model.shortcut is not None:
        model.shortcut.to_latent.requires_grad_(False)


def draw_images(
    batch: TrainingBatch,
    noise: PerSampleNoise,
    mel: MelImageConfig,
    config: FirstStageLossConfig,
) -> Float[Tensor, "image channel height width"]:
    """`num_frames` random frames of every clip, then the mel images of all clips."""
    video = batch.av["video"]
    frames = torch.stack(
        [
            torch.randint(video.shape[1], (config.num_frames,), generator=generator)
            for generator in noise.generators
        ]
    ).to(video.device)
    clip = torch.arange(len(video), device=video.device)[:, None]
    chosen = rearrange(video[clip, frames], "b f c h w -> (b f) c h w")
    sound = clip_images(AV(None, batch.av["audio"]), mel)
    return torch.cat([chosen, sound["audio"]])


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One pass of the image autoencoder."""

    image: Float[Tensor, "image channel height width"]
    decoded: Float[Tensor, "image channel height width"]
    kl: Float[Tensor, " image"]


def reconstruct(
    network: nn.Module, image: Float[Tensor, "image channel height width"], noise: PerSampleNoise
) -> Reconstruction:
    """Encode, draw a latent, decode. A clip's latents are drawn by the clip's own generator."""
    config = unwrapped(network).config
    size = [side // config.factor for side in image.shape[-2:]]
    num_clips = len(noise.generators)
    shape = (len(image) // num_clips, config.latent_channels, *size)
    rows = torch.stack([torch.randn(shape, generator=g) for g in noise.generators])
    drawn = torch.cat([rows[:, :-1].flatten(0, 1), rows[:, -1]])  # frames of all clips, then sounds
    decoded, posterior = network(image, drawn.to(image.device))
    return Reconstruction(image=image, decoded=decoded.float(), kl=posterior.kl())


def unwrapped(network: nn.Module) -> KLVAE:
    """The image autoencoder inside a wrapper for parallel training."""
    model = network.module if isinstance(network, DistributedDataParallel) else network
    assert isinstance(model, KLVAE), "this objective trains a KLVAE"
    return model


def first_stage_loss(
    result: Reconstruction, config: FirstStageLossConfig, perceptual: PerceptualLoss | None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], dict[str, Float[Tensor, " image"]]]:
    """Reconstruction part (without KL), whole loss, and the terms per image.

    Source:
        Rombach et al. 2022, appendix G; Zhang et al. 2018 for the perceptual term.
    """
    difference = result.image - result.decoded
    error = difference.abs() if config.reconstruction == "l1" else difference.square()
    terms = {"reconstruction": error.mean(dim=(1, 2, 3)), "kl": result.kl}
    total = terms["reconstruction"].mean()
    if perceptual is not None and config.perceptual_weight:
        terms["perceptual"] = perceptual(result.decoded, result.image)
        total = total + config.perceptual_weight * terms["perceptual"].mean()
    terms["psnr_db"] = 10 * torch.log10(4.0 / difference.square().mean(dim=(1, 2, 3)))
    kl = config.kl_weight * result.kl.mean() / result.image[0].numel()
    return total, total + kl, terms


class FirstStageObjectives:
    """The objectives of the image autoencoder and of its adversary, which share reconstructions.

    The adversary judges the reconstructions of the step before its own update, so nothing is
    computed twice.

    Args:
        discriminator: the adversary, or None to train without one.
        perceptual: the perceptual distance, or None for none.
    """

    def __init__(
        self,
        mel: MelImageConfig,
        config: FirstStageLossConfig,
        *,
        perceptual: PerceptualLoss | None = None,
        discriminator: PatchDiscriminator | None = None,
    ) -> None:
        self._mel = mel
        self._config = config
        self._perceptual = perceptual
        self._discriminator = discriminator
        self._shown: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def autoencoder_objective(self) -> Objective:
        return self._autoencoder_loss

    @property
    def discriminator_objective(self) -> Objective:
        return self._discriminator_loss

    def _started(self, batch: TrainingBatch) -> bool:
        return batch.sample_index >= self._config.adversarial_start

    def _autoencoder_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        image = draw_images(batch, noise, self._mel, self._config)
        result = reconstruct(network, image, noise)
        reconstruction, total, terms = first_stage_loss(result, self._config, self._perceptual)
        num_clips = len(batch.label)
        means = {}
        for name, value in terms.items():
            detached = value.detach()
            means[f"{name}_video"] = (float(detached[:-num_clips].mean()), num_clips)
            means[f"{name}_audio"] = (float(detached[-num_clips:].mean()), num_clips)
        if self._discriminator is not None and self._started(batch):
            adversarial = -self._discriminator(result.decoded).mean()
            last_layer = unwrapped(network).decoder.last_layer
            weight = balance(reconstruction, adversarial, last_layer)
            total = total + self._config.adversarial_weight * weight * adversarial
            means["adversarial"] = (float(adversarial.detach()), num_clips)
            means["adversarial_balance"] = (float(weight), num_clips)
            self._shown[batch.sample_index] = (image, result.decoded.detach())
        return TrainingLoss(total, means)

    def _discriminator_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        del noise  # the autoencoder's objective has drawn everything
        if not self._started(batch):
            return TrainingLoss(nothing_to_learn(network), {})
        image, decoded = self._shown.pop(batch.sample_index)
        loss = hinge_discriminator_loss(network(image), network(decoded))
        return TrainingLoss(loss, {"hinge": (float(loss.detach()), len(batch.label))})


def balance(
    reconstruction: Float[Tensor, ""], adversarial: Float[Tensor, ""], last_layer: Tensor
) -> Float[Tensor, ""]:
    """Ratio of the gradients' norms at the last layer, at most 10,000.

    Source:
        Esser et al. 2021 (VQGAN), equation 7.
    """
    wanted = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0].norm()
    given = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0].norm()
    return (wanted / (given + 1e-4)).clamp(0.0, 1e4).detach()


def nothing_to_learn(network: nn.Module) -> Float[Tensor, ""]:
    """A loss of zero whose gradient is zero at every parameter, for a trainee that must wait."""
    return torch.stack([0.0 * p.sum() for p in network.parameters() if p.requires_grad]).sum()
