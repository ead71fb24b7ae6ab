"""The stages of `train_default_model`: what each one minimises, and what it leaves."""

from collections.abc import Callable
from dataclasses import replace

import torch
from default_model_run import NO_LIMIT, Loss, Run, finished, fit, is_finished
from default_model_scenes import Scenes, pixels
from torch import Tensor, nn

from soundreel.data.latent_axes import PerceptualAxes, latent_moments
from soundreel.data.latents import LatentScaling, PerceptualStats
from soundreel.data.loader import Batch
from soundreel.diffusion.schedules import Schedule
from soundreel.systems.mm_ldm.autoencoder import (
    AutoencoderConfig,
    AutoencoderInputs,
    MultiModalAutoencoder,
)
from soundreel.systems.mm_ldm.autoencoder_loss import (
    AutoencoderLossConfig,
    add_noise_per_image,
    autoencoder_loss,
)
from soundreel.systems.mm_ldm.first_stage_loss import Reconstruction, first_stage_loss
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.generator_loss import GeneratorDraws, generator_loss
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.parts import (
    CONTEXT_MAPS,
    decoder_phase_parts,
    open_parts,
    semantic_shares,
)
from soundreel.systems.mm_ldm.signals import CachedSource, latents_of_moments
from soundreel.types import AV

ENCODE_CHUNK = 128  # clips that go through an encoder at once


def first_stage(run: Run, clips: Scenes) -> KLVAE:
    """Stage 1: frames and mel images through one image autoencoder."""
    stage = run.config.first_stage
    if not is_finished(run, "first_stage"):
        network = run.tools.seeded(lambda: KLVAE(stage.model), stage.train)
        size = run.config.clip.height // stage.model.factor

        def loss(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            count, num_frames = len(rows), clips.video.shape[1]
            shape = (count, stage.loss.num_frames)
            frames = torch.randint(num_frames, shape, generator=generator, device=run.device)
            chosen = pixels(clips.video[rows[:, None], frames]).flatten(0, 1)
            image = torch.cat([chosen, clips.mel[rows]])
            drawn = (len(image), stage.model.latent_channels, size, size)
            noise = torch.randn(drawn, generator=generator, device=run.device)
            decoded, posterior = network(image, noise)
            result = Reconstruction(image=image, decoded=decoded.float(), kl=posterior.kl())
            _, total, terms = first_stage_loss(result, stage.loss, None)
            return total, {
                f"{name}_{modality}": part.mean()
                for name, value in terms.items()
                for modality, part in (("video", value[:-count]), ("audio", value[-count:]))
            }

        fit(run, "first_stage", network, loss, stage.train, len(clips))
        scale = unit_scale(moments_of(network, clips, limit=8 * ENCODE_CHUNK))
        run.tools.leave("first_stage", network, replace(stage.model, latent_scale=scale))
    return finished(run, "first_stage")


@torch.no_grad()
def moments_of(network: KLVAE, clips: Scenes, limit: int = NO_LIMIT) -> AV:
    """Posteriors of all frames and mel images, laid out as `first_stage_moments` does."""

    def moments(images: Tensor) -> Tensor:
        posterior = network.posterior(images)
        return torch.cat([posterior.mean, posterior.logvar], dim=1)

    parts = []
    for first in range(0, min(len(clips), limit), ENCODE_CHUNK):
        rows = slice(first, first + ENCODE_CHUNK)
        frames = clips.video[rows]
        video = moments(pixels(frames.flatten(0, 1)))
        video = video.unflatten(0, frames.shape[:2]).flatten(1, 2)
        parts.append(AV(video, moments(clips.mel[rows])))
    return AV.cat(parts)


def unit_scale(moments: AV) -> float:
    """What gives the latents unit standard deviation; frames count as much as mel images."""
    channels = moments["audio"].shape[1] // 2
    video = moments["video"].unflatten(1, (-1, 2 * channels))[:, :, :channels]
    return float((0.5 * (video.var() + moments["audio"][:, :channels].var())).rsqrt())


def autoencoder(run: Run, clips: Scenes, moments: AV, network1: KLVAE) -> MultiModalAutoencoder:
    """Stage 2, on the posteriors of stage 1."""
    stage = run.config.autoencoder
    if not is_finished(run, "autoencoder"):
        network = run.tools.seeded(lambda: MultiModalAutoencoder(stage.model), stage.train)
        source = CachedSource(network1)
        loss = autoencoder_objective(run, network, clips, moments, source, stage.loss)
        shares = semantic_shares(network, stage.semantic_rate_share)
        fit(run, "autoencoder", network, loss, stage.train, len(clips), shares)
        run.tools.leave("autoencoder", network, stage.model)
    return finished(run, "autoencoder")


def decoder(
    run: Run, clips: Scenes, moments: AV, network1: KLVAE, stats: LatentScaling
) -> MultiModalAutoencoder:
    """Stage 2's last phase: the decoder learns what the latents' axes leave open."""
    stage = run.config.decoder
    if not is_finished(run, "decoder"):
        network = finished(run, "autoencoder")
        open_parts(network, decoder_phase_parts(network, on_axes=stage.on_axes))
        through = stats.project if isinstance(stats, PerceptualAxes) and stage.on_axes else None
        source = CachedSource(network1)
        loss = autoencoder_objective(run, network, clips, moments, source, stage.loss, through)
        shares = semantic_shares(network, run.config.autoencoder.semantic_rate_share)
        shares |= dict.fromkeys(CONTEXT_MAPS, stage.context_rate_factor)
        fit(run, "decoder", network, loss, stage.train, len(clips), shares)
        run.tools.leave("decoder", network, run.config.autoencoder.model)
    return finished(run, "decoder")


def autoencoder_objective(
    run: Run,
    network: nn.Module,
    clips: Scenes,
    moments: AV,
    source: CachedSource,
    config: AutoencoderLossConfig,
    through: Callable[[AV], AV] | None = None,
) -> Loss:
    """`AutoencoderGame` without an adversary, with draws for the whole batch."""
    model = run.config.autoencoder.model
    schedule = on_device(run.config.diffusion.build(), run.device)

    def loss(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        count, label = len(rows), clips.label[rows]

        def integers(high: int, *shape: int) -> Tensor:
            return torch.randint(high, shape, generator=generator, device=run.device)

        frames = integers(model.num_frames, count, config.num_target_frames).sort(dim=1).values
        timestep = AV(integers(len(schedule), *frames.shape), integers(len(schedule), count))
        batch = Batch(av=moments.rows(rows), label=label, keys=(), start_frames=(), sample_index=0)
        signals = source.signals(
            batch, model.key_frames, frames, lambda template: normal(template, generator)
        )
        noise = normal(signals.targets, generator)
        uniform = torch.rand(2, count, generator=generator, device=run.device)
        inputs = AutoencoderInputs(
            key_frames=signals.key_frames,
            audio_image=signals.targets["audio"],
            xt=add_noise_per_image(signals.targets, noise, timestep, schedule),
            timestep=timestep,
            frame_index=frames / model.num_frames,
            posterior_noise=normal(latent_template(model, count, run.device), generator),
            keep=AV(*(uniform >= config.drop_probability)),
            label=label,
            through=through,
        )
        outputs = network(inputs)
        result = autoencoder_loss(
            outputs, inputs, signals.targets, noise, label, schedule, config, model.prediction_type
        )
        return result.total, result.terms

    return loss


def latent_template(model: AutoencoderConfig, count: int, device: torch.device) -> AV:
    """Empty tensors shaped as the perceptual latents."""
    shapes = model.latents
    return AV(
        torch.empty(count, *shapes.video_shape, device=device),
        torch.empty(count, *shapes.audio_shape, device=device),
    )


def latents_of(moments: AV, network1: KLVAE, network2: MultiModalAutoencoder) -> AV:
    """Means of z_v and z_a of all clips, not standardised."""
    count = moments.batch_size
    parts = (slice(first, first + ENCODE_CHUNK) for first in range(0, count, ENCODE_CHUNK))
    return AV.cat([latents_of_moments(moments.rows(rows), network1, network2) for rows in parts])


def measured(run: Run, latents: AV) -> LatentScaling:
    """Between these latents of all clips and what the generator sees."""
    spec, count = run.config.autoencoder.model.latents, latents.batch_size
    parts = (latents.rows(slice(first, first + 4096)) for first in range(0, count, 4096))
    axes = run.config.latent_axes
    if axes is None:
        return PerceptualStats.measured(spec, parts).to(run.device)
    return PerceptualAxes.measured(axes.for_count(count), latent_moments(parts)).to(run.device)


def generator(run: Run, latents: AV, labels: Tensor, stats: LatentScaling) -> Generator:
    """Stage 3."""
    stage = run.config.generator
    if not is_finished(run, "generator"):
        network = run.tools.seeded(lambda: Generator(stage.model), stage.train)
        loss = generator_objective(run, network, latents, labels, stats)
        fit(run, "generator", network, loss, stage.train, len(labels))
        run.tools.leave("generator", network, stage.model)
    return finished(run, "generator")


def generator_objective(
    run: Run, network: nn.Module, latents: AV, labels: Tensor, stats: LatentScaling
) -> Loss:
    """`mm_ldm_generator_objective` with draws for the whole batch.

    Args:
        latents: of all clips, standardised.
        stats: by which they are.
    """
    config = run.config.generator.loss
    schedule = on_device(run.config.diffusion.build(), run.device)

    def loss(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        count, chosen = len(rows), latents.rows(rows)
        draws = GeneratorDraws(
            torch.randint(len(schedule), (count,), generator=generator, device=run.device),
            torch.rand(count, 3, generator=generator, device=run.device),
            stats.noise(normal(chosen, generator)),
        )
        losses = generator_loss(network, chosen, draws, schedule, config, label=labels[rows])
        return losses.loss.mean(), {name: value.mean() for name, value in losses.terms.items()}

    return loss


def normal(template: AV, generator: torch.Generator) -> AV:
    """Noise for a whole batch at once."""
    return template.map(lambda x: torch.randn(x.shape, generator=generator, device=x.device))


def on_device(schedule: Schedule, device: torch.device) -> Schedule:
    """A schedule whose tables need not be copied at every step."""
    return replace(
        schedule, betas=schedule.betas.to(device), timestep_map=schedule.timestep_map.to(device)
    )
