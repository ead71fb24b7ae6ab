"""Stage 1 of MM-LDM: losses of the image autoencoder on frames and mel images alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from soundreel.audio.mel_image import MelImageConfig
from soundreel.device import send
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.errors import SoundreelError
from soundreel.nn.perceptual_loss import PerceptualLoss
from soundreel.systems.mm_ldm.first_stage import clip_images
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.patch_discriminator import (
    PatchDiscriminator,
    hinge_discriminator_loss,
)
from soundreel.training.objectives import (
    Mean,
    Objective,
    StepObjective,
    TrainingBatch,
    TrainingLoss,
)
from soundreel.training.parallel import unwrapped
from soundreel.training.step import Step
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
) -> list[Float[Tensor, "_image channel _height _width"]]:
    """Return `num_frames` random frames of every clip, then the mel images of all clips.

    They are one batch where they have one shape, else two.
    """
    video = batch.av["video"]
    frames = torch.stack(
        [
            torch.randint(video.shape[1], (config.num_frames,), generator=generator)
            for generator in noise.generators
        ]
    )
    clip = torch.arange(len(video), device=video.device)[:, None]
    chosen = rearrange(video[clip, send(frames, video.device)], "b f c h w -> (b f) c h w")
    sound = clip_images(AV(None, batch.av["audio"]), mel)
    if chosen.shape[1:] != sound["audio"].shape[1:]:
        return [chosen, sound["audio"]]
    return [torch.cat([chosen, sound["audio"]])]


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One pass of the image autoencoder; a batch for each shape of image."""

    images: list[Float[Tensor, "_image channel _height _width"]]
    decoded: list[Float[Tensor, "_image channel _height _width"]]
    kl: Float[Tensor, " all_images"]


def reconstruct(
    network: nn.Module,
    images: list[Float[Tensor, "_image channel _height _width"]],
    noise: PerSampleNoise,
    *,
    forward: Callable[[Tensor, Tensor], Any] | None = None,
) -> Reconstruction:
    """Encode, draw a latent, decode. A clip's latents are drawn by the clip's own generator.

    Args:
        forward: called in place of the network.
    """
    config = kl_vae_of(network).config
    num_clips = len(noise.generators)
    decoded, kl = [], []
    for image in images:
        size = [side // config.factor for side in image.shape[-2:]]
        shape = (num_clips, len(image) // num_clips, config.latent_channels, *size)
        rows = noise(AV(torch.empty(shape, device=image.device), None))["video"]
        groups = (rows[:, :-1], rows[:, -1:]) if len(images) == 1 else (rows,)  # sounds come last
        drawn = torch.cat([group.flatten(0, 1) for group in groups])
        made, posterior = (forward or network)(image, drawn)
        decoded.append(made.float())
        kl.append(posterior.kl())
    return Reconstruction(images=images, decoded=decoded, kl=torch.cat(kl))


def kl_vae_of(network: nn.Module) -> KLVAE:
    """Return the image autoencoder, out of its wrapper for several processes."""
    model = unwrapped(network)
    assert isinstance(model, KLVAE), "this objective trains a KLVAE"
    return model


def first_stage_loss(
    result: Reconstruction, config: FirstStageLossConfig, perceptual: PerceptualLoss | None
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], dict[str, Float[Tensor, " image"]]]:
    """Return reconstruction part (without KL), whole loss, and the terms per image.

    Source:
        Rombach et al. 2022, appendix G; Zhang et al. 2018 for the perceptual term.
    """
    pairs = list(zip(result.images, result.decoded, strict=True))
    squared = torch.cat([(x - y).square().mean(dim=(1, 2, 3)) for x, y in pairs])
    error = squared
    if config.reconstruction == "l1":
        error = torch.cat([(x - y).abs().mean(dim=(1, 2, 3)) for x, y in pairs])
    terms = {"reconstruction": error, "kl": result.kl}
    total = terms["reconstruction"].mean()
    if perceptual is not None and config.perceptual_weight:
        terms["perceptual"] = torch.cat([perceptual(made, image) for image, made in pairs])
        total = total + config.perceptual_weight * terms["perceptual"].mean()
    terms["psnr_db"] = 10 * torch.log10(4.0 / squared)
    sizes = result.kl.new_tensor([image[0].numel() for image in result.images for _ in image])
    return total, total + config.kl_weight * (result.kl / sizes).mean(), terms


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
        self._shown: dict[int, list[Tensor]] = {}
        self._step: Step | None = None
        self._weight: Tensor | None = None

    @property
    def autoencoder_objective(self) -> StepObjective:
        """Return what the autoencoder minimises."""
        return StepObjective(self._prepare, self._autoencoder_loss)

    @property
    def discriminator_objective(self) -> Objective:
        """Return what the adversary minimises."""
        return self._discriminator_loss

    def _started(self, batch: TrainingBatch) -> bool:
        first = batch.sample_index if self._step is None else self._step.first_sample
        return first >= self._config.adversarial_start

    def _prepare(self, network: nn.Module, step: Step) -> None:
        """Weigh the adversary by all images of the step, where they are in several batches.

        The gradients at the last layer need no others: the rest of the network runs without.
        """
        self._step, self._weight = step, None
        if len(step.batches) == 1 or self._discriminator is None:
            return
        if not self._started(step.batches[0]):
            return
        model = kl_vae_of(network)
        last_layer = model.decoder.last_layer
        fixed = {name: p if p is last_layer else p.detach() for name, p in model.named_parameters()}

        def forward(image: Tensor, drawn: Tensor) -> Any:
            return functional_call(model, fixed, (image, drawn))

        sums = [torch.zeros_like(last_layer), torch.zeros_like(last_layer)]
        for batch, noise in step.passes():
            images = draw_images(batch, noise, self._mel, self._config)
            result = reconstruct(network, images, noise, forward=forward)
            reconstruction, _, _ = first_stage_loss(result, self._config, self._perceptual)
            losses = (reconstruction, -judged(self._discriminator, result.decoded).mean())
            for total, loss in zip(sums, losses, strict=True):
                total += torch.autograd.grad(loss, last_layer, retain_graph=True)[0]
        self._weight = balance(*(step.parallel.sum(total) / step.num_parts for total in sums))

    def _autoencoder_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        images = draw_images(batch, noise, self._mel, self._config)
        result = reconstruct(network, images, noise)
        reconstruction, total, terms = first_stage_loss(result, self._config, self._perceptual)
        num_clips = len(batch.label)
        means: dict[str, Mean] = {}
        for name, value in terms.items():
            detached = value.detach()
            means[f"{name}_video"] = (detached[:-num_clips].mean(), num_clips)
            means[f"{name}_audio"] = (detached[-num_clips:].mean(), num_clips)
        if self._discriminator is not None and self._started(batch):
            adversarial = -judged(self._discriminator, result.decoded).mean()
            weight = self._weight
            if weight is None:
                weight = self._weight_at(kl_vae_of(network), reconstruction, adversarial)
            total = total + self._config.adversarial_weight * weight * adversarial
            means["adversarial"] = (adversarial.detach(), num_clips)
            means["adversarial_balance"] = (weight, num_clips)
            made = (part.detach() for part in result.decoded)
            pairs = zip(images, made, strict=True)
            self._shown[batch.sample_index] = [torch.cat(pair) for pair in pairs]
        return TrainingLoss(total, means)

    def _weight_at(self, model: KLVAE, reconstruction: Tensor, adversarial: Tensor) -> Tensor:
        """Weigh the adversary by this batch, and by those of the other processes."""
        last_layer = model.decoder.last_layer
        gradients = [
            torch.autograd.grad(loss, last_layer, retain_graph=True)[0]
            for loss in (reconstruction, adversarial)
        ]
        if self._step is not None and not self._step.is_whole:
            gradients = [self._step.parallel.sum(g) / self._step.num_parts for g in gradients]
        return balance(*gradients)

    def _discriminator_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        del noise  # the autoencoder's objective has drawn everything
        if not self._started(batch):
            return TrainingLoss(nothing_to_learn(network), {})
        parts = [network(both).chunk(2) for both in self._shown.pop(batch.sample_index)]
        real, fake = (torch.cat([x.flatten() for x in side]) for side in zip(*parts, strict=True))
        loss = hinge_discriminator_loss(real, fake)
        return TrainingLoss(loss, {"hinge": (loss.detach(), len(batch.label))})


def judged(discriminator: nn.Module, images: list[Tensor]) -> Float[Tensor, " patch"]:
    """Return the adversary's opinion of every patch of every image."""
    return torch.cat([discriminator(batch).flatten() for batch in images])


def balance(wanted: Tensor, given: Tensor) -> Float[Tensor, ""]:
    """Return the ratio of two gradients' norms at the last layer, at most 10,000.

    Args:
        wanted: gradient of the reconstruction.
        given: gradient of the adversary's term.

    Source:
        Esser et al. 2021 (VQGAN), equation 7.
    """
    return (wanted.norm() / (given.norm() + 1e-4)).clamp(0.0, 1e4).detach()


def nothing_to_learn(network: nn.Module) -> Float[Tensor, ""]:
    """Return a loss of zero whose gradients are all zero, for a network that must wait."""
    return torch.stack([0.0 * p.sum() for p in network.parameters() if p.requires_grad]).sum()
