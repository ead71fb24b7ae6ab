"""Stage 2 of MM-LDM as objectives: the autoencoder's objective, and the adversarial phase."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from soundreel.device import send
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
        latent_transform: applied to the latents before heads and decoder see them.

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
        latent_transform: Callable[[AV], AV] | None = None,
    ) -> None:
        self._source = source
        self._first_stage = first_stage
        self._schedule = schedule
        self._config = config
        self._discriminator = discriminator
        self._adversarial = adversarial or AdversarialConfig()
        self._latent_transform = latent_transform
        self._shown: dict[int, tuple[Tensor, Tensor]] = {}
        self._prepared: dict[int, _Prepared] = {}

    @property
    def autoencoder_objective(self) -> StepObjective:
        """Return what the autoencoder minimises."""
        return StepObjective(self._prepare, self._autoencoder_loss)

    @property
    def discriminator_objective(self) -> Objective:
        """Return what the adversary minimises."""
        return self._discriminator_loss

    @torch.no_grad()
    def _prepare(self, network: nn.Module, step: Step) -> None:
        """Compare the clips of a step that comes in several batches, all with all.

        A first pass without decoder and gradients gives the contrastive features of all batches;
        what the loss asks of them is handed to the passes that learn. Also count the clips with a
        class.
        """
        self._prepared = {}
        if step.is_whole:
            return
        model = _autoencoder_of(network)
        inputs, features, sizes = [], [], []
        for batch, noise in step.passes():
            inputs.append(self._inputs(model, batch, noise))
            sizes.append(len(batch.label))
            if len(step.batches) > 1:
                features.append(model.contrastive_features(inputs[-1].forward))
        known = [float((batch.label >= 0).sum()) for batch in step.batches]
        total = send(torch.tensor(sum(known)), step.batches[0].av.device)
        total = step.parallel.sum(total).clamp(min=1.0)
        contrast, first_row = None, step.parallel.rank * sum(sizes)
        if features:
            everyone = AV.cat(features).map(step.parallel.gather)
            contrast = model.contrastive_head.contrast(everyone)
        for batch, made, size, count in zip(step.batches, inputs, sizes, known, strict=True):
            if contrast is not None:
                rows = slice(first_row, first_row + size)
                part = contrast.of_rows(rows, step.num_parts)
                made = replace(made, forward=replace(made.forward, contrast=part))
            first_row += size
            share = count * step.num_parts / total
            self._prepared[batch.sample_index] = _Prepared(made, share)

    def _inputs(
        self, model: MultiModalAutoencoder, batch: TrainingBatch, noise: PerSampleNoise
    ) -> "_Inputs":
        config, device = model.config, batch.av.device
        draws = draw(noise, config, self._config, len(self._schedule), device)
        signals = self._source.signals(batch, config.key_frames, draws.frames, noise)

        def moved(x: Tensor) -> Tensor:
            return send(x, device)

        timestep = draws.timestep.map(moved)
        label = batch.label if config.decoder.num_classes else None
        told = _told_label(label, draws.keep_class, model)
        inputs = AutoencoderInputs(
            key_frames=signals.key_frames,
            audio_image=signals.targets["audio"],
            xt=add_noise_per_image(signals.targets, draws.noise, timestep, self._schedule),
            timestep=timestep,
            frame_index=moved(draws.frames / config.num_frames),
            posterior_noise=draws.posterior_noise,
            keep=draws.keep.map(moved),
            label=None if told is None else moved(told),
            latent_transform=self._latent_transform,
        )
        return _Inputs(
            forward=inputs,
            targets=signals.targets,
            noise=draws.noise,
            frames=draws.frames,
            label=None if label is None else moved(label),
        )

    def _autoencoder_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        model = _autoencoder_of(network)
        prepared = self._prepared.pop(batch.sample_index, None)
        if prepared is None:
            prepared = _Prepared(self._inputs(model, batch, noise), 1.0)
        made = prepared.inputs
        result = autoencoder_loss(
            network(made.forward),
            made.forward,
            made.targets,
            made.noise,
            made.label,
            self._schedule,
            self._config,
            model.config.prediction_type,
            prepared.class_share,
        )
        total, terms = result.total, dict(result.terms)
        if self._discriminator is not None:
            fake = self._decoded_triples(result.x0)
            terms["adversarial"] = self._generator_term(fake)
            total = total + self._config.adversarial_weight * terms["adversarial"]
            real = self._source.images(batch, made.frames)
            self._shown[batch.sample_index] = (_triples(real), fake.detach())
        count = len(batch.label)
        means: dict[str, Mean] = {name: (value.detach(), count) for name, value in terms.items()}
        if "class" in means:  # clips without a class are not behind it
            means["class"] = (means["class"][0], int((batch.label >= 0).sum()))
        return TrainingLoss(total, means)

    def _decoded_triples(self, x0: AV) -> Float[Tensor, "batch slot channel height width"]:
        """Return images of the estimates: 3 per clip, with gradient."""
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
        return TrainingLoss(loss, {"hinge": (loss.detach(), count), "accuracy": (right, count)})


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """A batch of stage 2, with everything random drawn."""

    forward: AutoencoderInputs
    targets: AV
    noise: AV
    frames: Int[Tensor, "batch frame"]
    label: Int[Tensor, " batch"] | None


@dataclass(frozen=True)
class _Prepared:
    """A batch with what the other batches of its step have to do with its loss."""

    inputs: _Inputs
    class_share: float | Float[Tensor, ""]


def _autoencoder_of(network: nn.Module) -> MultiModalAutoencoder:
    model = unwrapped(network)
    assert isinstance(model, MultiModalAutoencoder), "this objective trains the autoencoder"
    return model


def _triples(images: AV) -> Float[Tensor, "batch slot channel height width"]:
    video = images["video"]
    return triples(images["audio"], video[:, 0], video[:, -1])


def _told_label(
    label: Int[Tensor, " batch"] | None, keep: Tensor, model: MultiModalAutoencoder
) -> Int[Tensor, " batch"] | None:
    """Return the label the decoder is told: the null class where it is dropped or unknown."""
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
