"""Stage 2 of MM-LDM: losses of the multi-modal autoencoder, and what is random in a step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.process import (
    PredictionType,
    noise_level,
    q_sample,
    to_x0,
    training_target,
)
from soundreel.diffusion.schedules import Schedule
from soundreel.systems.mm_ldm.autoencoder import (
    AutoencoderConfig,
    AutoencoderInputs,
    AutoencoderOutputs,
)
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class AutoencoderLossConfig:
    """Weights and draws; the defaults are MM-LDM's for Landscape.

    Args:
        kl_weight: of the KL divergences, which are sums over the latent's elements.
        class_weight, contrastive_weight: of the two heads' losses.
        adversarial_weight: of the generator's part of the adversarial loss.
        drop_probability: of dropping one modality's condition, per modality and clip.
        num_target_frames: frames per clip that are denoised in a step, drawn with replacement.
    """

    removed: ClassVar[Mapping[str, Any]] = {"class_drop_probability": 0.0}

    kl_weight: float = 1e-6
    class_weight: float = 0.1
    contrastive_weight: float = 0.03
    adversarial_weight: float = 0.1
    drop_probability: float = 0.1
    num_target_frames: int = 2


@dataclass(frozen=True, kw_only=True)
class AutoencoderLoss:
    """Loss of one pass and the clean estimates it implies.

    Args:
        total: weighted sum, without the adversarial part.
        terms: unweighted parts by name.
        x0: one-step clean estimates, shaped as the targets, with gradient.
    """

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    x0: AV


@dataclass(frozen=True, kw_only=True)
class AutoencoderDraws:
    """Everything random in a training step, per clip from the clip's own generator.

    Args:
        frames: numbers of the target frames, sorted, `batch frame`.
        timestep: video `batch frame`, audio `batch`.
        noise: shaped as the targets.
        posterior_noise: shaped as the perceptual latents.
        keep: whether a modality's condition is kept, `batch`.
    """

    frames: Int[Tensor, "batch frame"]
    timestep: AV
    noise: AV
    posterior_noise: AV
    keep: AV


def draw(
    noise: PerSampleNoise,
    model: AutoencoderConfig,
    config: AutoencoderLossConfig,
    num_timesteps: int,
    device: torch.device | None = None,
) -> AutoencoderDraws:
    """Draw a step's randomness.

    Args:
        device: of the noise, by default the CPU; all else is drawn on the CPU.

    Source:
        MM-LDM, section 3, and its release: 2 target frames with replacement, a step per image,
        conditions dropped per modality.
    """
    rows = [_draw_one(g, model, config, num_timesteps) for g in noise.generators]
    frames, video_step, audio_step, uniforms = (
        torch.stack(part) for part in zip(*rows, strict=True)
    )
    video, audio = model.video_encoder, model.audio_encoder
    count, batch = config.num_target_frames, len(rows)
    keep = uniforms >= config.drop_probability
    latents = model.latents
    empty = partial(torch.empty, device=device)
    return AutoencoderDraws(
        frames=frames,
        timestep=AV(video_step, audio_step),
        noise=noise(
            AV(
                empty(batch, count, video.image_channels, video.image_size, video.image_size),
                empty(batch, audio.image_channels, *audio.image_shape),
            )
        ),
        posterior_noise=noise(
            AV(empty(batch, *latents.video_shape), empty(batch, *latents.audio_shape))
        ),
        keep=AV(keep[:, 0], keep[:, 1]),
    )


def _draw_one(
    generator: torch.Generator,
    model: AutoencoderConfig,
    config: AutoencoderLossConfig,
    num_timesteps: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = (config.num_target_frames,)
    return (
        torch.randint(model.num_frames, count, generator=generator).sort().values,
        torch.randint(num_timesteps, count, generator=generator),
        torch.randint(num_timesteps, (), generator=generator),
        torch.rand(2, generator=generator),
    )


def add_noise_per_image(x0: AV, noise: AV, timestep: AV, schedule: Schedule) -> AV:
    """Return x_t where every frame and every mel image has its own step.

    Args:
        x0, noise: video `batch frame channel height width`, audio `batch channel height width`.
        timestep: video `batch frame`, audio `batch`.
    """
    return _per_image(lambda x, eps, t: q_sample(x, t, eps, schedule), timestep, x0, noise)


def autoencoder_loss(
    outputs: AutoencoderOutputs,
    inputs: AutoencoderInputs,
    x0: AV,
    noise: AV,
    label: Int[Tensor, " batch"] | None,
    schedule: Schedule,
    config: AutoencoderLossConfig,
    prediction_type: PredictionType,
) -> AutoencoderLoss:
    """Return prediction errors, KL, class and contrastive losses.

    Args:
        label: true classes for the class head; None leaves the term out.

    Source:
        MM-LDM, section 3; each modality's error is the mean over its own elements.
    """
    target = _per_image(
        lambda x, eps, t: training_target(x, eps, noise_level(schedule, t), prediction_type),
        inputs.timestep,
        x0,
        noise,
    )
    estimate = _per_image(
        lambda out, xt, t: to_x0(out, xt, noise_level(schedule, t), prediction_type),
        inputs.timestep,
        outputs.prediction,
        inputs.xt,
    )
    errors = outputs.prediction.map(
        lambda out, want: functional.mse_loss(out.float(), want), target
    )
    kl = outputs.posteriors.kl().map(Tensor.mean)
    terms = {
        "mse_video": errors["video"],
        "mse_audio": errors["audio"],
        "kl_video": kl["video"],
        "kl_audio": kl["audio"],
        "contrastive": outputs.contrastive_loss,
    }
    total = (
        errors["video"]
        + errors["audio"]
        + config.kl_weight * (kl["video"] + kl["audio"])
        + config.contrastive_weight * outputs.contrastive_loss
    )
    if outputs.class_logits is not None and label is not None:
        terms["class"] = functional.cross_entropy(outputs.class_logits.float(), label)
        total = total + config.class_weight * terms["class"]
    return AutoencoderLoss(total=total, terms=terms, x0=estimate)


def _per_image(function: Callable[[AV, AV, Tensor], AV], timestep: AV, first: AV, second: AV) -> AV:
    """Apply `function(pair, pair, step)` to single images, which have one step each."""

    def rows(av: AV) -> AV:
        return AV(rearrange(av["video"], "b f c h w -> (b f) c h w"), None)

    shape = first["video"].shape
    video = function(rows(first), rows(second), timestep["video"].flatten())["video"]
    audio = function(AV(None, first.audio), AV(None, second.audio), timestep["audio"])["audio"]
    return AV(video.reshape(shape), audio)
