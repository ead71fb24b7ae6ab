"""The preset of MM-LDM that trains within minutes; for tests and the first look."""

from dataclasses import replace

from soundreel.audio.mel import MelConfig
from soundreel.audio.mel_image import MelImageConfig
from soundreel.config import DataConfig
from soundreel.systems.mm_ldm.config import (
    AdversarialRun,
    LDMPreviewConfig,
    MMLDMConfig,
)
from soundreel.systems.mm_ldm.discriminator import DiscriminatorConfig
from soundreel.systems.mm_ldm.generator_config import GeneratorSizes
from soundreel.systems.mm_ldm.kl_vae import KLVAEConfig
from soundreel.systems.mm_ldm.patch_discriminator import PatchDiscriminatorConfig
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.systems.mm_ldm.small_presets import small, small_autoencoder
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec


def tiny() -> MMLDMConfig:
    """Return a preset whose stages take a minute or two on two CPU cores, for a first look."""
    clip = ClipSpec(num_frames=8, height=32, width=32, sample_rate=16_000)
    decoder = SignalDecoderConfig(
        image_size=8,
        width=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_factors=(2,),
        num_heads=4,
        context_dim=32,
        linear_shortcut=True,
        num_classes=0,
    )
    model = small_autoencoder(
        decoder,
        width=32,
        channels=(8, 8),
        key_frames=(0, 2, 5, 7),
        num_frames=8,
        halve_audio=True,
    )
    train = TrainConfig(
        total_samples=320,
        global_batch_size=8,
        micro_batch_size=8,
        learning_rate=1e-3,
        warmup_samples=32,
        ema_decay=0.9,
        max_grad_norm=1.0,
        log_every=80,
        save_every=160,
        preview_every=320,
    )
    short = replace(train, total_samples=64, log_every=32, save_every=32, preview_every=64)
    base = small()
    return replace(
        base,
        clip=clip,
        mel_image=MelImageConfig(
            sample_rate=16_000,
            num_samples=clip.num_samples,
            image_size=32,
            mel=MelConfig(num_mels=40),
        ),
        first_stage=replace(
            base.first_stage,
            model=KLVAEConfig(width=16, channel_mult=(1, 2, 2), num_res_blocks=1),
            adversary=True,
            discriminator=PatchDiscriminatorConfig(width=8, num_layers=2),
            loss=replace(base.first_stage.loss, adversarial_start=240),
            train=train,
        ),
        autoencoder=replace(base.autoencoder, model=model, train=train),
        adversarial=AdversarialRun(
            discriminator=DiscriminatorConfig(
                image_size=32,
                width=16,
                channel_mult=(1, 2, 2),
                head_width=16,
                joint_attention=(4,),
                temporal_attention=(2,),
            ),
            train=short,
        ),
        generator=replace(
            base.generator,
            model=GeneratorSizes(
                width=64,
                depth=2,
                num_heads=4,
                context_dim=32,
                num_context_tokens=2,
            ),
            train=replace(train, total_samples=640, log_every=160),
        ),
        decoding=replace(base.decoding, num_steps=4),
        sampling=replace(base.sampling, num_steps=8),
        data=DataConfig(stride=4),
        preview=LDMPreviewConfig(count=2),
    )
