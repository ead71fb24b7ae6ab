"""Sampling perceptual latents from the joint generator, one modality known or none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from soundreel.diffusion.denoiser import Callback, Prediction
from soundreel.diffusion.guidance import classifier_free
from soundreel.diffusion.process import PredictionType, per_sample
from soundreel.diffusion.schedules import Schedule
from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.history_encoder import LongGenerator
from soundreel.systems.mm_ldm.solver import LatentSampler, solve
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of sampling latents; the defaults are the published ones.

    Args:
        num_steps: steps of the sampler.
        sampler: see `solver.LATENT_SAMPLERS`.
        video_guidance_scale, audio_guidance_scale: 1 turns guidance off. The published value of 9
            sharpens a generator whose only condition is a learned prompt towards its mode.
        history_guidance: in long video, whether guidance strengthens the history as well, as
            published. Each window then starts from the exaggeration of the one before, and films
            drift. False gives the null branch the history too, as it is given known latents.
    """

    removed: ClassVar[Mapping[str, Any]] = {"second_pass": "none"}

    num_steps: int = 50
    sampler: LatentSampler = "ddim"
    video_guidance_scale: float = 9.0
    audio_guidance_scale: float = 9.0
    history_guidance: bool = True

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise SoundreelError(f"num_steps must be positive, got {self.num_steps}")


@torch.no_grad()
def sample_latents(
    generator: Generator | LongGenerator,
    xt: AV,
    schedule: Schedule,
    config: SamplingConfig,
    *,
    prediction_type: PredictionType = "epsilon",
    condition: AV | None = None,
    previous: AV | None = None,
    label: Int[Tensor, " batch"] | None = None,
    text: Float[Tensor, "token context_dim"] | None = None,
    callback: Callback | None = None,
) -> AV:
    """Return standardised latents of a batch of clips.

    Args:
        xt: standard normal noise, the start.
        schedule: the training chain.
        condition: clean latents that are known, for every clip of the batch or for none; they come
            back as they are.
        previous: standardised latents of the clips before, for a generator for long video; what is
            absent is not known.
        label: class numbers; without them a generator that knows classes samples without one.
        text: token states in place of the learned prompt.

    Source:
        MM-LDM, section 3: the null branch of guidance has no prompt, but the same known latents; in
        long video it has no history either, unless `history_guidance` is off.
    """
    given = AV(None, None) if condition is None else condition
    inner = generator.generator if isinstance(generator, LongGenerator) else generator
    num_classes = inner.config.num_classes
    if not num_classes:
        label = None
    elif label is None:
        label = torch.full((xt.batch_size,), num_classes, device=xt.device)
    states = None
    if text is not None:
        states = repeat(text.to(xt.device), "token dim -> b token dim", b=xt.batch_size)

    history, past = xt.map(torch.zeros_like), previous or AV(None, None)
    for name in past.present:
        history = history.replace(name, past[name])

    def rows(x: Tensor, like: Tensor) -> Tensor:
        """Repeat the batch as often as guidance does."""
        return x.repeat(len(like) // len(x), *(x.dim() - 1) * [1])

    def branches(xt: AV, timestep: Tensor, kept: Tensor) -> Prediction:
        told = {}
        if isinstance(generator, LongGenerator):
            known = kept if config.history_guidance else torch.ones_like(kept)
            told["previous"] = history.map(lambda x: per_sample(known.to(x), x) * rows(x, kept))
        return generator(
            xt,
            timestep,
            condition=given.map(lambda x: rows(x, kept)),
            context_kept=kept,
            text=None if states is None else rows(states, kept),
            label=None if label is None else rows(label, kept),
            **told,
        )

    latents = solve(
        classifier_free(
            branches,
            video_scale=config.video_guidance_scale,
            audio_scale=config.audio_guidance_scale,
        ),
        xt,
        schedule,
        sampler=config.sampler,
        num_steps=config.num_steps,
        prediction_type=prediction_type,
        callback=callback,
    )
    for name in given.present:
        latents = latents.replace(name, given[name])
    return latents
