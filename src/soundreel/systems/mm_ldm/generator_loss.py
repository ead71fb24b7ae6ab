"""Third stage of MM-LDM: the loss of the joint generator on perceptual latents.

One timestep for both modalities of a clip. Now and then a clip's context is dropped (for guidance),
or one modality's clean latent is given as a condition, so that the network also learns
audio-to-video and video-to-audio.

Source: Sun et al. 2024 (arXiv 2410.01594), section 3 and its release.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from soundreel.device import send
from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.losses import LossTerms, diffusion_loss
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import PredictionType
from soundreel.diffusion.schedules import Schedule
from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.history_encoder import generator_of
from soundreel.training.objectives import (
    Objective,
    TrainingBatch,
    TrainingLoss,
    draw_timesteps,
    log_means,
)
from soundreel.types import AV

TextSource = Callable[[TrainingBatch], Float[Tensor, "batch token context_dim"]]
"""Token states of the captions of a batch's clips; zeros for a clip that has none."""


@dataclass(frozen=True, kw_only=True)
class GeneratorObjective:
    """Settings of the generator's loss; the defaults are the published settings.

    Attributes:
        context_drop: share of clips whose prompt, text and class are dropped.
        audio_condition, video_condition: share of clips, among those that keep their context, that
            are given the clean latent of a modality; if both are drawn, neither is given.
        known_class_drop: share of the clips given a modality whose class is not told, so that sound
            for a video and pictures for a sound work without naming a class.
        known_loss_weight: of the loss on the modality that was given; 0 leaves it out, because its
            noise can nearly be read off the condition.
    """

    prediction_type: PredictionType = "epsilon"
    context_drop: float = 0.1
    audio_condition: float = 0.05
    video_condition: float = 0.05
    known_class_drop: float = 0.0
    known_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("context_drop", "audio_condition", "video_condition", "known_class_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise SoundreelError(f"{name} is a share within [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class ConditionMasks:
    """Per clip: is the context kept, is the clean audio or video latent given."""

    context_kept: Bool[Tensor, " batch"]
    audio_given: Bool[Tensor, " batch"]
    video_given: Bool[Tensor, " batch"]

    def given(self, modality: str) -> Bool[Tensor, " batch"]:
        return self.video_given if modality == "video" else self.audio_given


@dataclass(frozen=True, slots=True)
class GeneratorDraws:
    """Everything random in one training step.

    Attributes:
        timestep: index into the schedule.
        uniforms: in [0, 1), for context, audio and video condition in this order.
        noise: standard normal, shaped as the latents.
    """

    timestep: Int[Tensor, " batch"]
    uniforms: Float[Tensor, "batch 3"]
    noise: AV


def draw(latents: AV, schedule: Schedule, noise: PerSampleNoise) -> GeneratorDraws:
    """Draw a step's randomness, every clip's from its own generators.

    A clip's draws do not depend on the batch it is in.
    """
    device = latents.device
    timestep = send(draw_timesteps(noise, len(schedule)), device)
    uniforms = torch.stack([torch.rand(3, generator=g) for g in noise.generators])
    return GeneratorDraws(timestep, send(uniforms, device), noise(latents))


def condition_masks(
    uniforms: Float[Tensor, "batch 3"], objective: GeneratorObjective
) -> ConditionMasks:
    """Turn uniform draws into what each clip's network input holds."""
    context, audio, video = uniforms.unbind(dim=1)
    kept = context >= objective.context_drop
    audio_drawn = kept & (audio < objective.audio_condition)
    video_drawn = kept & (video < objective.video_condition)
    return ConditionMasks(kept, audio_drawn & ~video_drawn, video_drawn & ~audio_drawn)


def class_dropped(
    uniforms: Float[Tensor, "batch 3"], masks: ConditionMasks, objective: GeneratorObjective
) -> Bool[Tensor, " batch"]:
    """Return which of the clips given a modality are not told their class.

    The draw that gave the modality decides: below `known_class_drop` of its own threshold.
    """
    _, audio, video = uniforms.unbind(dim=1)
    share = objective.known_class_drop
    return (masks.audio_given & (audio < share * objective.audio_condition)) | (
        masks.video_given & (video < share * objective.video_condition)
    )


def known_latents(latents: AV, masks: ConditionMasks) -> AV:
    """Return the condition: clean latents where they are given, zeros elsewhere."""
    return AV(
        latents["video"] * _per_row(masks.video_given, latents["video"]),
        latents["audio"] * _per_row(masks.audio_given, latents["audio"]),
    )


def generator_loss(
    network: nn.Module,
    latents: AV,
    draws: GeneratorDraws,
    schedule: Schedule,
    objective: GeneratorObjective,
    *,
    label: Int[Tensor, " batch"] | None = None,
    **told: Any,
) -> LossTerms:
    """Return loss per clip: the mean squared errors of both modalities, added.

    Args:
        network: a `Generator`, or what wraps one for parallel training.
        latents: clean z_v and z_a as the generator sees them (standardised).
        label: class numbers; the number after the last class stands for none.
        told: what else the network is told: `text`, a `LongGenerator` also `previous`.
    """
    config = generator_of(network).config
    masks = condition_masks(draws.uniforms, objective)
    if label is not None and objective.known_class_drop:
        dropped = class_dropped(draws.uniforms, masks, objective)
        label = torch.where(dropped, config.num_classes, label)
    losses = conditional_loss(
        network,
        latents,
        draws,
        schedule,
        condition=known_latents(latents, masks),
        context_kept=masks.context_kept,
        prediction_type=objective.prediction_type,
        learned_variance=config.learned_variance,
        label=label,
        **told,
    )
    terms = {
        name: torch.where(
            masks.given(name.rpartition("_")[2]), objective.known_loss_weight * value, value
        )
        for name, value in losses.terms.items()
    }
    return LossTerms(torch.stack(list(terms.values())).sum(dim=0), terms)


def conditional_loss(
    network: nn.Module,
    latents: AV,
    draws: GeneratorDraws,
    schedule: Schedule,
    *,
    condition: AV,
    context_kept: Bool[Tensor, " batch"],
    prediction_type: PredictionType = "epsilon",
    learned_variance: bool = False,
    **told: Any,
) -> LossTerms:
    """Return loss per clip under conditions that are already chosen; `draws.uniforms` is not read.

    Args:
        told: what else the network is told: `label`, `text`, a `LongGenerator` also `previous`.
    """

    def denoiser(xt: AV, timestep: Tensor) -> Prediction:
        return network(xt, timestep, condition=condition, context_kept=context_kept, **told)

    return diffusion_loss(
        denoiser,
        latents,
        draws.timestep,
        draws.noise,
        schedule,
        prediction_type=prediction_type,
        variance="learned_range" if learned_variance else "fixed_large",
    )


def mm_ldm_generator_objective(
    schedule: Schedule,
    objective: GeneratorObjective,
    *,
    standardize: Callable[[AV], AV] | None = None,
    colour: Callable[[AV], AV] | None = None,
    text: TextSource | None = None,
) -> Objective:
    """Return the objective for the training loop; batches hold perceptual latents.

    Args:
        standardize: makes what the generator sees of them; None where they are so already.
        colour: makes the noise that goes with the latents from white noise; None leaves it white.
        text: gives the token states that take the place of the learned prompt.
    """

    def loss(network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise) -> TrainingLoss:
        latents = batch.av if standardize is None else standardize(batch.av)
        losses, draws = generator_step(
            network, batch, latents, noise, schedule, objective, colour=colour, text=text
        )
        means = log_means(losses.terms, draws.timestep, len(schedule))
        return TrainingLoss(losses.loss.mean(), means)

    return loss


def generator_step(
    network: nn.Module,
    batch: TrainingBatch,
    latents: AV,
    noise: PerSampleNoise,
    schedule: Schedule,
    objective: GeneratorObjective,
    *,
    colour: Callable[[AV], AV] | None = None,
    text: TextSource | None = None,
    history: Callable[[GeneratorDraws], AV] | None = None,
) -> tuple[LossTerms, GeneratorDraws]:
    """Draw a step's randomness and return the loss of each clip with what was drawn.

    Args:
        latents: standardised ones of the clips to be generated.
        history: what a `LongGenerator` is told of the clips before, given the draws.
    """
    config = generator_of(network).config
    draws = draw(latents, schedule, noise)
    if colour is not None:
        draws = replace(draws, noise=colour(draws.noise))
    told: dict[str, Any] = {} if text is None else {"text": send(text(batch), latents.device)}
    if history is not None:
        told["previous"] = history(draws)
    if config.num_classes:
        # A clip without a class trains the row that stands for none.
        label = torch.where(batch.label < 0, config.num_classes, batch.label)
        told["label"] = send(label, latents.device)
    return generator_loss(network, latents, draws, schedule, objective, **told), draws


def _per_row(mask: Bool[Tensor, " batch"], like: Tensor) -> Tensor:
    return mask.to(like).reshape(-1, *(1 for _ in like.shape[1:]))
