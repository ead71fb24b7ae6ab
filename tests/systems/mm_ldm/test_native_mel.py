"""Mel images that keep their aspect: nothing is scaled, and every stage takes them."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

import soundreel
from soundreel.audio.mel_image import (
    DB_PER_LOG,
    MelImageConfig,
    decode_mel_image,
    encode_mel_image,
    waveform_to_log_mel,
)
from soundreel.clip import Clip
from soundreel.config import DataConfig
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoder
from soundreel.systems.mm_ldm.small_presets import native, small, small_native
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.systems.mm_ldm.training import train_mm_ldm
from soundreel.types import AV


def noise(num_samples):
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(2, num_samples, generator=generator)


@pytest.mark.parametrize("image_size", [0, 64])
def test_what_comes_back_is_cut_off_by_a_grey_level_and_only_scaling_costs_more(image_size):
    config = replace(small().mel_image, image_size=image_size)
    sound = noise(config.num_samples)
    image = encode_mel_image(sound, config)
    assert image.shape == ((2, 3, 64, 64) if image_size else (2, 3, 80, 112))
    error = (decode_mel_image(image, config) - waveform_to_log_mel(sound, config)) * DB_PER_LOG
    assert error.shape == (2, 80, 100)
    level = 100 / 255
    if image_size:
        assert float(error.abs().mean()) > 2 * level
    else:
        assert -level - 1e-3 < float(error.min()) <= float(error.max()) < 1e-3


def test_black_is_beside_the_picture():
    config = replace(small().mel_image, image_size=0)
    image = encode_mel_image(noise(config.num_samples), config)
    assert (image[:, :, :, 100:] == -1).all()
    assert (image[:, :, :, :100] > -1).any()
    published = MelImageConfig(image_size=0, side_multiple=64)
    assert published.image_shape == (128, 320)
    for wrong in ({"image_size": -1}, {"side_multiple": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MelImageConfig(**wrong)


def test_the_preset_differs_in_the_mel_image_alone():
    config, square = small_native(), small()
    latents = config.autoencoder.model.latents
    assert latents.audio_shape == (16, 10, 14)
    assert latents.video_shape == square.autoencoder.model.latents.video_shape
    assert config.generator_model.grid("audio") == (5, 7)
    encoder = replace(config.autoencoder.model.audio_encoder, image_size=8, image_width=0)
    assert encoder == square.autoencoder.model.audio_encoder
    with pytest.raises(ValueError, match="mel_image's height and width is"):
        replace(config, mel_image=replace(config.mel_image, side_multiple=32))
    with pytest.raises(ValueError, match=r"set adversarial\.enabled to False"):
        replace(config, adversarial=replace(config.adversarial, enabled=True))


def test_the_decoder_sees_each_shape_as_if_alone():
    config = native(tiny())
    model = config.autoencoder.model
    torch.manual_seed(0)
    network = MultiModalAutoencoder(model).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        latent = AV(
            torch.randn(2, *model.latents.video_shape), torch.randn(2, *model.latents.audio_shape)
        )
        condition = network.condition(latent, torch.tensor([[0.0, 0.5]]).expand(2, -1))
        xt = AV(torch.randn(2, 2, 4, 8, 8), torch.randn(2, 4, 12, 16))
        steps = AV(torch.tensor([[10, 500], [900, 1]]), torch.tensor([300, 700]))
        assert isinstance(network.decoder, SignalDecoder)
        both = network.decoder(xt, steps, condition)
        for name in ("video", "audio"):
            alone = network.decoder(AV(None, None).replace(name, xt[name]), steps, condition)[name]
            assert both[name].shape == xt[name].shape
            torch.testing.assert_close(both[name], alone)


def short(config: MMLDMConfig) -> MMLDMConfig:
    """Return a run of a few steps of every stage."""

    def few(stage, total_samples=16):
        train = replace(stage.train, total_samples=total_samples, log_every=8, preview_every=16)
        return replace(stage, train=train)

    # What z_a has beyond its image comes to life only slowly.
    stages = {"autoencoder": few(config.autoencoder, 64), "generator": few(config.generator)}
    first = few(config.first_stage)
    loss = replace(first.loss, adversarial_start=8)
    return replace(
        config,
        **stages,
        first_stage=replace(first, loss=loss),
        data=DataConfig(stride=4),
        decoding=replace(config.decoding, num_steps=2),
        sampling=replace(config.sampling, num_steps=2),
    )


@pytest.mark.slow
def test_every_stage_trains_on_them_and_the_model_makes_clips(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        frames = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        sound = (0.3 * rng.standard_normal((1, 32_000))).clip(-1, 1).astype(np.float32)
        Clip(frames, sound, Fraction(10), 16_000).save(tmp_path / "videos" / f"{name}.mkv")
    options = PrepareOptions(height=32, width=32, min_duration_s=1.0)
    prepare_dataset(tmp_path / "videos", tmp_path / "data", options, num_workers=0)
    assert train_mm_ldm(short(native(tiny())), tmp_path / "data", tmp_path / "run")
    pipe = soundreel.load(tmp_path / "run" / "model")
    assert pipe.settings.mel_image.image_shape == (48, 64)
    (clip,) = pipe.generate(seed=1)
    assert clip.frames.shape == (8, 32, 32, 3)
    assert clip.waveform.shape == (1, 12_800)
    known = Clip(frames[:8], sound[:, :12_800], Fraction(10), 16_000)
    (sounded,) = pipe.generate(video=known)
    assert np.array_equal(sounded.frames, known.frames)
    assert pipe.reconstruct(known).num_samples == 12_800
