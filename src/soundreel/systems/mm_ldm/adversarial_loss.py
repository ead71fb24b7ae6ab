"""Stage 2 of MM-LDM as objectives: the autoencoder's objective, and the adversarial phase."""

from dataclasses import dataclass, replace

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
from soundreel.systems.mm_ldm.kl_vae import KLVAE
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


class AutoencoderObjectives:
    """The objectives of the autoencoder and, in the adversarial phase, of its discriminator.

    One-step clean estimates of the first and the last target frame and of the mel image are decoded
    to pixels *with* gradient and shown to the discriminator.

    Args:
        source: gives the latents of a batch.
        first_stage: frozen; decodes the estimates.
        discriminator: the adversary, or None for the phase without one.

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
        first_stage: KLVAE,
        schedule: Schedule,
        config: AutoencoderLossConfig,
        *,
        discriminator: Discriminator | None = None,
    ) -> None:
        self._source = source
        self._first_stage = first_stage
        self._schedule = schedule
        self._config = config
        self._discriminator = discriminator
        self._shown: dict[int, tuple[Tensor, Tensor]] = {}
        self._prepared: dict[int, _Inputs] = {}

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
        what the loss asks of them is handed to the passes that learn.
        """
        self._prepared = {}
        if len(step.batches) == 1:
            return
        model = _autoencoder_of(network)
        inputs, features, sizes = [], [], []
        for batch, noise in step.passes():
            inputs.append(self._inputs(model, batch, noise))
            sizes.append(len(batch.label))
            features.append(model.contrastive_features(inputs[-1].forward))
        first_row = step.parallel.rank * sum(sizes)
        everyone = AV.cat(features).map(step.parallel.gather)
        contrast = model.contrastive_head.contrast(everyone)
        for batch, made, size in zip(step.batches, inputs, sizes, strict=True):
            part = contrast.of_rows(slice(first_row, first_row + size), step.num_parts)
            first_row += size
            forward = replace(made.forward, contrast=part)
            self._prepared[batch.sample_index] = replace(made, forward=forward)

    def _inputs(
        self, model: MultiModalAutoencoder, batch: TrainingBatch, noise: PerSampleNoise
    ) -> "_Inputs":
        config, device = model.config, batch.av.device
        draws = draw(noise, config, self._config, len(self._schedule), device)
        signals = self._source.signals(batch, config.key_frames, draws.frames, noise)

        def moved(x: Tensor) -> Tensor:
            return send(x, device)

        timestep = draws.timestep.map(moved)
        label = None
        if config.decoder.num_classes:
            if bool((batch.label < 0).any()):
                raise SoundreelError(
                    "a clip has no label, but the decoder needs one; set "
                    "autoencoder.model.decoder.num_classes=0 for data without classes"
                )
            label = moved(batch.label)
        inputs = AutoencoderInputs(
            key_frames=signals.key_frames,
            audio_image=signals.targets["audio"],
            xt=add_noise_per_image(signals.targets, draws.noise, timestep, self._schedule),
            timestep=timestep,
            frame_index=moved(draws.frames / config.num_frames),
            posterior_noise=draws.posterior_noise,
            keep=draws.keep.map(moved),
            label=label,
        )
        return _Inputs(
            forward=inputs,
            targets=signals.targets,
            noise=draws.noise,
            frames=draws.frames,
        )

    def _autoencoder_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        model = _autoencoder_of(network)
        made = self._prepared.pop(batch.sample_index, None) or self._inputs(model, batch, noise)
        result = autoencoder_loss(
            network(made.forward),
            made.forward,
            made.targets,
            made.noise,
            made.forward.label,
            self._schedule,
            self._config,
            model.config.prediction_type,
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
        return TrainingLoss(total, means)

    def _decoded_triples(self, x0: AV) -> Float[Tensor, "batch slot channel height width"]:
        """Return images of the estimates: 3 per clip, with gradient."""
        latents = _triples(x0)
        rows = self._first_stage.decode(rearrange(latents, "b f c h w -> (b f) c h w"))
        return rearrange(rows.float(), "(b f) c h w -> b f c h w", b=len(latents))

    def _generator_term(self, fake: Tensor) -> Float[Tensor, ""]:
        assert self._discriminator is not None
        logits = self._discriminator(fake).float()
        return hinge_loss(logits, torch.ones_like(logits))

    def _discriminator_loss(
        self, network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise
    ) -> TrainingLoss:
        del noise  # the autoencoder's objective has drawn everything
        real, fake = self._shown.pop(batch.sample_index)
        shown, labels = discriminator_batch(real, fake)
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


def _autoencoder_of(network: nn.Module) -> MultiModalAutoencoder:
    model = unwrapped(network)
    assert isinstance(model, MultiModalAutoencoder), "this objective trains the autoencoder"
    return model


def _triples(images: AV) -> Float[Tensor, "batch slot channel height width"]:
    video = images["video"]
    return triples(images["audio"], video[:, 0], video[:, -1])
