"""Stage 2 of MM-LDM as trainees: the autoencoder's objective, and the adversarial phase."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import Schedule
from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.autoencoder import AutoencoderInputs, MultiModalAutoencoder
from soundreel.systems.mm_ldm.autoencoder_loss import (
    AutoencoderLossConfig,
    add_noise_per_image,
    autoencoder_loss,
    draw,
)
from soundreel.systems.mm_ldm.discriminator import (
    Discriminator,
    discriminator_batch,
    hinge_loss,
    triples,
)
from soundreel.systems.mm_ldm.first_stage import FirstStage
from soundreel.systems.mm_ldm.signals import SignalSource
from soundreel.training.objectives import Objective, TrainingBatch, TrainingLoss
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """The second phase of stage 2.

    Args:
        generator_loss: `"hinge"`, relu(1 - logit), as released, or `"linear"`, -logit, which does
            not stop pushing at a logit of 1.
        mismatched: also show the discriminator real frames with another clip's real sound.
    """

    generator_loss: Literal["hinge", "linear"] = "hinge"
    mismatched: bool = False

    def __post_init__(self) -> None:
        if self.generator_loss not in ("hinge", "linear"):
            raise SoundreelError(
                f"generator_loss is 'hinge' or 'linear', got {self.generator_loss!r}"
            )


class AutoencoderObjectives:
    """The objectives of the autoencoder and, in the adversarial phase, of its discriminator.

    One-step clean estimates of the first and the last target frame and of the mel image are decoded
    to pixels *with* gradient and shown to the discriminator.

    Args:
        source: gives the latents of a batch.
        first_stage: frozen; decodes the estimates.
        discriminator: the adversary, or None for the phase without one.
        through: what latents pass before heads and decoder see them.

    Source:
        MM-LDM, section 3 and appendix 1.4.

    Deviation:
        The release decodes without gradient, so that its adversary teaches the generator nothing.
        It also runs the generator twice a step; here the discriminator sees the estimates of the
        generator's own pass.
    """

    def __init__(
        self,
        source: SignalSource,
        first_stage: FirstStage,
        schedule: Schedule,
        config: AutoencoderLossConfig,
        *,
        discriminator: Discriminator | None = None,
        adversarial: AdversarialConfig | None = None,
        through: Callable[[AV], AV] | None = None,
    ) -> None:
        self._source = source
        self._first_stage = first_stage
        self._schedule = schedule
        self._config = config
        self._discriminator = discriminator
        self._adversarial = adversarial or AdversarialConfig()
        self._through = through
        self._shown: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def autoencoder_objective(self) -> Objective:
        return self._autoencoder_loss

    @property
    def discriminator_objective(self) -> Objective:
        return self._discriminator_loss

    def _autoencoder_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        model = network.module if isinstance(network, DistributedDataParallel) else network
        assert isinstance(model, MultiModalAutoencoder), "this objective trains the autoencoder"
        config, device = model.config, batch.av.device
        draws = draw(noise, config, self._config, len(self._schedule))
        signals = self._source.signals(batch, config.key_frames, draws.frames, noise)
        timestep, target_noise = draws.timestep.to(device), draws.noise.to(device)
        label = batch.label.to(device) if config.decoder.num_classes else None
        inputs = AutoencoderInputs(
            key_frames=signals.key_frames,
            audio_image=signals.targets["audio"],
            xt=add_noise_per_image(signals.targets, target_noise, timestep, self._schedule),
            timestep=timestep,
            frame_index=(draws.frames / config.num_frames).to(device),
            posterior_noise=draws.posterior_noise.to(device),
            keep=draws.keep.to(device),
            label=_told_label(label, draws.keep_class.to(device), model),
            through=self._through,
        )
        outputs = network(inputs)
        result = autoencoder_loss(
            outputs,
            inputs,
            signals.targets,
            target_noise,
            label,
            self._schedule,
            self._config,
            config.prediction_type,
        )
        total, terms = result.total, dict(result.terms)
        if self._discriminator is not None:
            fake = self._decoded_triples(result.x0)
            terms["adversarial"] = self._generator_term(fake)
            total = total + self._config.adversarial_weight * terms["adversarial"]
            real = self._source.images(batch, draws.frames)
            self._shown[batch.sample_index] = (_triples(real), fake.detach())
        count = len(batch.label)
        return TrainingLoss(total, {k: (float(v.detach()), count) for k, v in terms.items()})

    def _decoded_triples(self, x0: AV) -> Float[Tensor, "batch slot channel height width"]:
        """Images of the estimates: 3 per clip, with gradient."""
        latents = _triples(x0)
        rows = self._first_stage.decode(rearrange(latents, "b f c h w -> (b f) c h w"))
        return rearrange(rows.float(), "(b f) c h w -> b f c h w", b=len(latents))

    def _generator_term(self, fake: Tensor) -> Float[Tensor, ""]:
        assert self._discriminator is not None
        logits = self._discriminator(fake).float()
        if self._adversarial.generator_loss == "linear":
            return -logits.mean()
        return hinge_loss(logits, torch.ones_like(logits))

    def _discriminator_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        del noise  # the autoencoder's objective has drawn everything
        real, fake = self._shown.pop(batch.sample_index)
        shown, labels = discriminator_batch(real, fake, mismatched=self._adversarial.mismatched)
        logits = network(shown).float()
        loss = hinge_loss(logits, labels)
        count = len(batch.label)
        right = ((logits > 0) == (labels > 0)).float().mean()
        return TrainingLoss(
            loss, {"hinge": (float(loss.detach()), count), "accuracy": (float(right), count)}
        )


def _triples(images: AV) -> Float[Tensor, "batch slot channel height width"]:
    video = images["video"]
    return triples(images["audio"], video[:, 0], video[:, -1])


def _told_label(
    label: Int[Tensor, " batch"] | None, keep: Tensor, model: MultiModalAutoencoder
) -> Int[Tensor, " batch"] | None:
    """The label the decoder is told: the null class where it is dropped or unknown."""
    if label is None:
        return None
    decoder = model.config.decoder
    if decoder.learned_null_class:
        told = keep & (label >= 0)
        return torch.where(told, label, torch.full_like(label, decoder.null_class))
    if not bool(keep.all()):
        raise SoundreelError("class_drop_probability needs a decoder with learned_null_class=True")
    if bool((label < 0).any()):
        raise SoundreelError(
            "a clip has no label, but the decoder needs one; set learned_null_class=True, or "
            "num_classes=0 for data without classes"
        )
    return label
