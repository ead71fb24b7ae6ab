"""Objectives of MM-LDM's first two stages: adversaries, draws, sources of latents."""

from dataclasses import dataclass, replace

import pytest
import torch

from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import MelImageConfig
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import scaled_linear_schedule
from soundreel.systems.mm_ldm.adversarial_loss import AutoencoderObjectives
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig, MultiModalAutoencoder
from soundreel.systems.mm_ldm.autoencoder_loss import AutoencoderLossConfig, draw
from soundreel.systems.mm_ldm.discriminator import (
    Discriminator,
    DiscriminatorConfig,
)
from soundreel.systems.mm_ldm.first_stage_loss import (
    FirstStageLossConfig,
    FirstStageObjectives,
    draw_images,
    freeze_encoder,
)
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.patch_discriminator import (
    PatchDiscriminator,
    PatchDiscriminatorConfig,
)
from soundreel.systems.mm_ldm.perceptual_encoders import AudioEncoderConfig, VideoEncoderConfig
from soundreel.systems.mm_ldm.semantic import ProjectorConfig
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.systems.mm_ldm.signals import (
    CachedSource,
    PixelSource,
    first_stage_moments,
    moments_spec,
)
from soundreel.training.loop import TrainConfig, fit
from soundreel.training.trainee import make_trainee
from soundreel.types import AV

SIZE, FRAMES, SAMPLES = 32, 4, 3200
MEL = MelImageConfig(
    sample_rate=8000,
    num_samples=SAMPLES,
    image_size=SIZE,
    mel=MelConfig(filterbank_sample_rate=8000, max_hz=4000.0, num_mels=16),
)


@dataclass(frozen=True)
class Batch:
    av: AV
    label: torch.Tensor
    sample_index: int = 0


def make_batch(size=2, sample_index=0):
    generator = torch.Generator().manual_seed(7)
    video = torch.rand(size, FRAMES, 3, SIZE, SIZE, generator=generator) * 2 - 1
    audio = 0.3 * torch.randn(size, 1, SAMPLES, generator=generator)
    return Batch(AV(video, audio.clamp(-1, 1)), torch.arange(size) % 2, sample_index)


def make_first_stage(kind=KLVAE):
    torch.manual_seed(0)
    return kind(KLVAEConfig(width=8, channel_mult=(1, 1, 2), num_res_blocks=1, latent_scale=0.5))


def make_autoencoder(**decoder):
    torch.manual_seed(0)
    decoder = SignalDecoderConfig(
        image_size=8,
        width=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        num_heads=4,
        attention_factors=(2,),
        context_dim=32,
        num_classes=2,
        **decoder,
    )
    encoder = VideoEncoderConfig(
        image_size=8,
        latent_channels=4,
        width=32,
        num_res_blocks=1,
        head_width=16,
        attention_factors=(2,),
        feature_channels=tuple(c for c, _ in decoder.feature_blocks),
        feature_factors=tuple(f for _, f in decoder.feature_blocks),
    )
    projector = ProjectorConfig(
        semantic_dim=32,
        width=16,
        channel_mult=(1, 2),
        num_res_blocks=1,
        head_width=16,
        attention_factors=(2,),
    )
    return MultiModalAutoencoder(
        AutoencoderConfig(
            video_encoder=encoder,
            audio_encoder=AudioEncoderConfig.like(encoder),
            video_projector=projector,
            audio_projector=projector,
            decoder=decoder,
            num_frames=FRAMES,
            key_frames=(0, 3),
            num_prompt_tokens=2,
            contrastive_dim=8,
        )
    )


def make_discriminator():
    torch.manual_seed(1)
    return Discriminator(
        DiscriminatorConfig(
            image_size=SIZE,
            width=16,
            channel_mult=(1, 1, 2),
            head_width=8,
            joint_attention=(4,),
            temporal_attention=(2,),
        )
    )


def make_objectives(*, adversary=None, config=None):
    first_stage = make_first_stage().requires_grad_(False)
    return AutoencoderObjectives(
        PixelSource(first_stage, MEL, (4, 8, 8)),
        first_stage,
        scaled_linear_schedule(),
        config or AutoencoderLossConfig(),
        discriminator=adversary,
    )


def gradients(network):
    return {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


class WithoutGradient(KLVAE):
    """The release's way: decode under no_grad."""

    def decode(self, latent):
        with torch.no_grad():
            return super().decode(latent)


@pytest.mark.parametrize("decodes_with_gradient", [True, False])
def test_the_adversarial_gradient_reaches_the_generator_through_the_decoded_images(
    decodes_with_gradient,
):
    """It does, and would not if the images were decoded without gradient, as in the release."""
    model, adversary = make_autoencoder(), make_discriminator()
    kind = KLVAE if decodes_with_gradient else WithoutGradient
    first_stage = make_first_stage(kind).requires_grad_(False)
    grads = []
    for weight in (0.0, 1.0):
        model.zero_grad()
        objectives = AutoencoderObjectives(
            PixelSource(first_stage, MEL, (4, 8, 8)),
            first_stage,
            scaled_linear_schedule(),
            AutoencoderLossConfig(adversarial_weight=weight),
            discriminator=adversary,
        )
        result = objectives.autoencoder_objective(model, make_batch(), PerSampleNoise([1, 2]))
        result.loss.backward()
        grads.append(gradients(model)["decoder.conv_out.weight"])
    share = float((grads[1] - grads[0]).norm() / grads[0].norm())
    assert share > 1e-3 if decodes_with_gradient else share < 1e-6


def test_one_adversarial_step_lowers_what_the_discriminator_can_tell():
    """Moving the generator along its adversarial gradient raises the logits of its images."""
    model, adversary = make_autoencoder(), make_discriminator()
    only = AutoencoderLossConfig(
        adversarial_weight=1e3, drop_probability=0.0, class_weight=0.0, contrastive_weight=0.0
    )
    optimizer = torch.optim.SGD(model.decoder.conv_out.parameters(), lr=1e-3)
    values = []
    for _ in range(3):
        objectives = make_objectives(adversary=adversary, config=only)
        result = objectives.autoencoder_objective(model, make_batch(), PerSampleNoise([1, 2]))
        values.append(result.means["adversarial"][0])
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
    assert values[2] < values[1] < values[0]


def test_the_discriminator_learns_on_the_estimates_of_the_same_step():
    model, adversary = make_autoencoder(), make_discriminator()
    objectives = make_objectives(adversary=adversary)
    batch, noise = make_batch(), PerSampleNoise([1, 2])
    objectives.autoencoder_objective(model, batch, noise).loss.backward()
    model.zero_grad()
    adversary.zero_grad()
    result = objectives.discriminator_objective(adversary, batch, noise)
    result.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adversary.parameters())
    assert all(p.grad is None for p in model.parameters()), "it must not teach the generator"
    assert result.means["hinge"][0] > 0


def test_a_clips_draws_do_not_depend_on_its_batch():
    config = make_autoencoder().config
    together = draw(PerSampleNoise([5, 6]), config, AutoencoderLossConfig(), 1000)
    alone = draw(PerSampleNoise([6]), config, AutoencoderLossConfig(), 1000)
    assert torch.equal(together.frames[1:], alone.frames)
    assert torch.equal(together.timestep["video"][1:], alone.timestep["video"])
    assert torch.equal(together.noise["audio"][1:], alone.noise["audio"])
    assert torch.equal(together.posterior_noise["video"][1:], alone.posterior_noise["video"])


def test_conditions_are_dropped_at_the_configured_rate_independently():
    config = make_autoencoder().config
    drawn = draw(
        PerSampleNoise(range(2000)), config, AutoencoderLossConfig(drop_probability=0.2), 1000
    )
    video, audio = ~drawn.keep["video"], ~drawn.keep["audio"]
    assert float(video.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(audio.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float((video & audio).float().mean()) == pytest.approx(0.04, abs=0.02)
    steps = drawn.timestep["video"]
    assert float((steps[:, 0] != steps[:, 1]).float().mean()) > 0.99
    assert (drawn.frames.diff(dim=1) >= 0).all()


def test_a_decoder_with_classes_refuses_unlabelled_clips():
    batch = replace(make_batch(), label=torch.tensor([-1, 0]))
    with pytest.raises(ValueError, match="a clip has no label, but the decoder needs one"):
        make_objectives().autoencoder_objective(make_autoencoder(), batch, PerSampleNoise([1, 2]))


def test_cached_moments_give_the_latents_that_pixels_give():
    first_stage = make_first_stage()
    batch = make_batch()
    with torch.no_grad():
        cached = first_stage_moments(batch.av, first_stage, MEL)
    spec = moments_spec(first_stage, FRAMES, SIZE, MEL.image_shape)
    assert cached["video"].shape[1:] == spec.video_shape
    assert cached["audio"].shape[1:] == spec.audio_shape
    frames = torch.tensor([[0, 2], [1, 3]])

    class Silent:
        def __call__(self, template):
            return template.map(torch.zeros_like)

    direct = PixelSource(first_stage, MEL, (4, 8, 8)).signals(batch, (0, 3), frames, Silent())
    stored = CachedSource(first_stage).signals(replace(batch, av=cached), (0, 3), frames, Silent())
    torch.testing.assert_close(direct.key_frames, stored.key_frames, atol=1e-5, rtol=1e-4)
    for modality in ("video", "audio"):
        torch.testing.assert_close(
            direct.targets[modality], stored.targets[modality], atol=1e-5, rtol=1e-4
        )


def first_stage_networks(config, *, adversary=True):
    model = make_first_stage()
    torch.manual_seed(2)
    discriminator = PatchDiscriminator(PatchDiscriminatorConfig(width=8, num_layers=2))
    objectives = FirstStageObjectives(
        MEL, config, discriminator=discriminator if adversary else None
    )
    return model, discriminator, objectives


def test_the_first_stage_learns_frames_and_sounds_together():
    config = FirstStageLossConfig(perceptual_weight=0.0, num_frames=2)
    model, _, objectives = first_stage_networks(config, adversary=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(15):
        result = objectives.autoencoder_objective(model, make_batch(), PerSampleNoise([1, 2]))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        history.append(result.means)
    for name in ("reconstruction_video", "reconstruction_audio"):
        assert history[-1][name][0] < history[0][name][0]
    assert history[-1]["psnr_db_audio"][0] > history[0]["psnr_db_audio"][0]


def test_the_patch_adversary_waits_for_its_start():
    config = FirstStageLossConfig(perceptual_weight=0.0, adversarial_start=100)
    model, discriminator, objectives = first_stage_networks(config)
    noise = PerSampleNoise([1, 2])
    early = make_batch(sample_index=98)
    assert "adversarial" not in objectives.autoencoder_objective(model, early, noise).means
    waiting = objectives.discriminator_objective(discriminator, early, noise)
    waiting.loss.backward()
    assert not any(p.grad.any() for p in discriminator.parameters())
    late = make_batch(sample_index=100)
    result = objectives.autoencoder_objective(model, late, noise)
    assert result.means["adversarial_balance"][0] > 0
    discriminator.zero_grad()
    objectives.discriminator_objective(discriminator, late, noise).loss.backward()
    assert all(p.grad.any() for p in discriminator.parameters() if p.dim() == 4)


def test_a_frozen_encoder_keeps_the_latent_space():
    model = make_first_stage()
    freeze_encoder(model)
    config = FirstStageLossConfig(perceptual_weight=0.0)
    objectives = FirstStageObjectives(MEL, config)
    trainee = make_trainee("vae", model, objectives.autoencoder_objective, learning_rate=1e-2)
    image = make_batch().av["video"][:, 0]
    with torch.no_grad():
        before, decoded = model.encode(image), model.decode(torch.ones(1, 4, 8, 8))
    result = trainee.objective(model, make_batch(), PerSampleNoise([1, 2]))
    result.loss.backward()
    trainee.optimizer.step()
    with torch.no_grad():
        assert torch.equal(model.encode(image), before)
        assert not torch.equal(model.decode(torch.ones(1, 4, 8, 8)), decoded)


def test_first_stage_images_are_frames_of_all_clips_then_their_sounds():
    batch, noise = make_batch(), PerSampleNoise([1, 2])
    (images,) = draw_images(batch, noise, MEL, FirstStageLossConfig(num_frames=3))
    assert images.shape == (8, 3, SIZE, SIZE)
    own = [any(torch.equal(images[i], f) for f in batch.av["video"][i // 3]) for i in range(6)]
    assert all(own)
    assert torch.equal(images[6, 0], images[6, 1])


def black_and_silent(size, signal):
    batch = make_batch(size)
    video, audio = batch.av["video"], batch.av["audio"]
    if signal in ("silence", "both"):
        audio = torch.zeros_like(audio)
    if signal in ("black", "both"):
        video = torch.full_like(video, -1.0)
    return replace(batch, av=AV(video, audio))


@pytest.mark.parametrize(("size", "signal"), [(1, "silence"), (1, "black"), (3, "both")])
@pytest.mark.parametrize("stage", ["first_stage", "autoencoder", "adversarial"])
def test_single_silent_and_black_clips_and_odd_batches_give_finite_losses(stage, size, signal):
    batch, noise = black_and_silent(size, signal), PerSampleNoise(range(size))
    if stage == "first_stage":
        config = FirstStageLossConfig(perceptual_weight=0.0, adversarial_start=0)
        model, adversary, objectives = first_stage_networks(config)
    else:
        model = make_autoencoder()
        adversary = make_discriminator() if stage == "adversarial" else None
        objectives = make_objectives(adversary=adversary)
    losses = [objectives.autoencoder_objective(model, batch, noise).loss]
    if adversary is not None:
        losses.append(objectives.discriminator_objective(adversary, batch, noise).loss)
    for network, loss in zip((model, adversary), losses, strict=False):
        network.zero_grad()
        loss.backward()
        assert loss.isfinite()
        assert all(g.isfinite().all() for g in gradients(network).values())


def logged_losses(stage, micro_batch_size, folder):
    """Losses and gradients' norms of a step on four clips."""
    whole = make_batch(4)
    adversary = None
    if stage == "first_stage":
        config = FirstStageLossConfig(perceptual_weight=0.0, adversarial_start=0)
        model, adversary, objectives = first_stage_networks(config)
    else:
        model = make_autoencoder()
        adversary = make_discriminator() if stage == "adversarial" else None
        objectives = make_objectives(adversary=adversary)
    trainees = [make_trainee("model", model, objectives.autoencoder_objective, learning_rate=1e-4)]
    if adversary is not None:
        objective = objectives.discriminator_objective
        trainees.append(make_trainee("adversary", adversary, objective, learning_rate=1e-4))

    def batches():
        for first in range(0, 4, micro_batch_size):
            rows = slice(first, first + micro_batch_size)
            yield Batch(whole.av.rows(rows), whole.label[rows], first)

    lines = []
    config = TrainConfig(
        total_samples=4,
        global_batch_size=4,
        micro_batch_size=micro_batch_size,
        log_every=4,
        precision="float32",
    )
    fit(trainees, batches(), config, checkpoints=folder, trackers=[lines.append])
    (line,) = lines
    return {name: value for name, value in line.items() if "/" in name}


@pytest.mark.parametrize("stage", ["first_stage", "autoencoder", "adversarial"])
def test_the_size_of_the_parts_of_a_batch_changes_no_loss(stage, tmp_path):
    """Clips are compared and the adversary weighed over the whole batch."""
    once = logged_losses(stage, 4, tmp_path / "4")
    assert {"model/contrastive", "model/class"} <= once.keys() or stage == "first_stage"
    assert "model/adversarial_balance" in once or stage != "first_stage"
    for size in (2, 1):
        parts = logged_losses(stage, size, tmp_path / str(size))
        assert parts == pytest.approx(once, rel=2e-5, abs=1e-6)
