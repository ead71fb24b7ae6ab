"""Presets of MM-LDM with the published settings (reconstructed Table 1)."""

from dataclasses import replace
from fractions import Fraction

from soundreel.audio.mel_image import MelImageConfig
from soundreel.config import DataConfig
from soundreel.systems.mm_ldm.autoencoder import AutoencoderConfig
from soundreel.systems.mm_ldm.autoencoder_loss import AutoencoderLossConfig
from soundreel.systems.mm_ldm.config import (
    AdversarialRun,
    AutoencoderRun,
    FirstStageRun,
    GeneratorRun,
    MMLDMConfig,
)
from soundreel.systems.mm_ldm.first_stage_loss import FirstStageLossConfig
from soundreel.systems.mm_ldm.generator_config import GeneratorSizes
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoderConfig
from soundreel.training.epochs import in_samples
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec

LANDSCAPE_EPOCH = 85_120  # windows of 16 frames, stride 1, in 1,000 clips of 10 s

A800_TFLOPS = 0.3 * 312
"""Tera-operations a second of a card: 30 % of its peak in half precision, an estimate."""
AUTOENCODER_TFLOP = 4.9
"""Tera-operations for a training clip of stage 2: seven images through the frozen first stage, 1.9;
encoders, projectors, and the signal decoder on two frames and the sound, 0.76 forwards, four times
that with the backward pass and recomputation."""
GENERATOR_TFLOP = 2.7
"""Likewise of stage 3, whose published code does not keep latents: five images through the first
stage, 1.4, the encoders, 0.2, and three times the generator's 0.38."""


def landscape() -> MMLDMConfig:
    """Return the published model: 256x256 at 10 fps, 44.1 kHz, 9 classes.

    Source:
        MM-LDM, appendix 1.4 and Table 1; batch sizes, weights and rates from its release.
    """
    return _published(num_classes=9, kl_weight=1e-6, stage_epochs=30.0, generator_epochs=300.0)


def aist() -> MMLDMConfig:
    """Return the published settings for AIST++: as Landscape, with 60 pieces of music as
    classes."""
    return _published(num_classes=60, kl_weight=1e-9, stage_epochs=10.0, generator_epochs=100.0)


def audioset() -> MMLDMConfig:
    """Return the published open-domain settings: 4 fps, 4 s, no classes, no adversary.

    The source gives no epochs or steps but five days on two A800 cards (appendix 1.5: two for the
    autoencoder, three for the generator). The budget is what two such cards see in that time:
    6.6 million clips and 18 million.
    """
    base = _published(num_classes=0, kl_weight=1e-7, stage_epochs=30.0, generator_epochs=300.0)
    base = in_samples(base, LANDSCAPE_EPOCH)
    autoencoder, generator = base.autoencoder.train, base.generator.train
    autoencoder = replace(autoencoder, total_samples=_in_days(2, AUTOENCODER_TFLOP, autoencoder))
    generator = replace(
        generator, total_samples=_in_days(3, GENERATOR_TFLOP, generator), learning_rate=1e-4
    )
    clip = replace(base.clip, frame_rate=Fraction(4))
    return replace(
        base,
        clip=clip,
        mel_image=replace(base.mel_image, num_samples=clip.num_samples),
        adversarial=replace(base.adversarial, enabled=False),
        autoencoder=replace(base.autoencoder, train=autoencoder),
        generator=replace(base.generator, train=generator),
        decoding=replace(base.decoding, audio_guidance_scale=1.5, video_guidance_scale=3.0),
    )


def _in_days(days: int, tflop: float, train: TrainConfig) -> int:
    """Return clips that two A800 cards see in so many days, in whole steps."""
    clips = days * 86_400 * 2 * A800_TFLOPS / tflop
    return round(clips / train.global_batch_size) * train.global_batch_size


def _published(
    *, num_classes: int, kl_weight: float, stage_epochs: float, generator_epochs: float
) -> MMLDMConfig:
    clip = ClipSpec(height=256, width=256, sample_rate=44_100)
    model = AutoencoderConfig(decoder=SignalDecoderConfig(num_classes=num_classes))
    stage = TrainConfig(
        total_samples=0,
        epochs=float(stage_epochs),
        global_batch_size=160,
        micro_batch_size=20,
        learning_rate=1e-4,
        weight_decay=0.01,
        ema_decay=0.0,
        log_every=3_200,
        save_every=64_000,
        preview_every=64_000,
    )
    return MMLDMConfig(
        clip=clip,
        mel_image=MelImageConfig(num_samples=clip.num_samples),
        first_stage=FirstStageRun(
            loss=FirstStageLossConfig(adversarial_start=800_080, freeze_encoder=True),
            train=replace(
                stage,
                epochs=20.0,
                global_batch_size=80,
                micro_batch_size=10,
                learning_rate=1e-5,
            ),
        ),
        autoencoder=AutoencoderRun(
            model=model, loss=AutoencoderLossConfig(kl_weight=kl_weight), train=stage
        ),
        adversarial=AdversarialRun(train=stage),
        generator=GeneratorRun(
            model=GeneratorSizes(),
            train=replace(
                stage,
                epochs=float(generator_epochs),
                global_batch_size=224,
                micro_batch_size=28,
                learning_rate=1e-5,
            ),
        ),
        data=DataConfig(flip_probability=0.5),
    )
