"""Presets of MM-LDM: the reconstructed Table 1, parameter counts, and sizes that fit together."""

from dataclasses import replace

import pytest
import torch

from soundreel.checkpoints.packed import pack_state
from soundreel.config_io import ConfigError, config_from_json, config_to_json, merge_file
from soundreel.data.latent_axes import PerceptualAxes
from soundreel.data.scenes.render import KINDS
from soundreel.systems.mm_ldm import presets as mm_ldm
from soundreel.systems.mm_ldm import small_presets as smaller
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.discriminator import Discriminator
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.tiny_preset import tiny

ALL = [mm_ldm.landscape, mm_ldm.aist, mm_ldm.audioset, smaller.small, smaller.scenes, tiny]


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(params=ALL, ids=lambda preset: preset.__name__)
def config(request):
    return request.param()


def test_every_preset_builds_and_comes_back_from_json(config):
    with torch.device("meta"):
        KLVAE(config.first_stage.model)
        MultiModalAutoencoder(config.autoencoder.model)
        Generator(config.generator_model)
        Discriminator(config.adversarial.discriminator)
    assert config_from_json(MMLDMConfig, config_to_json(config), "test") == config


def test_the_preset_of_scenes_knows_every_kind_of_scene_and_fits_when_packed():
    config = smaller.scenes()
    parts = [
        KLVAE(config.first_stage.model),
        MultiModalAutoencoder(config.autoencoder.model),
        Generator(config.generator_model),
        PerceptualAxes(config.latent_axes),
    ]
    tensors = [x for part in parts for x in pack_state(part.state_dict()).values()]
    assert sum(x.numel() * x.element_size() for x in tensors) < 32 * 2**20
    assert config.generator.model.num_classes == len(KINDS)
    assert config.autoencoder.model.decoder.num_classes == len(KINDS)


def test_published_presets_have_the_values_of_table_1():
    config = mm_ldm.landscape()
    model = config.autoencoder.model
    assert config.first_stage.model.factor == 8
    assert (model.video_encoder.factor, model.audio_encoder.factor) == (2, 4)
    for encoder in (model.video_encoder, model.audio_encoder):
        assert (encoder.image_size, encoder.image_channels, encoder.latent_channels) == (32, 4, 16)
        assert (encoder.width, encoder.num_res_blocks, encoder.head_width) == (320, 2, 64)
    assert model.video_encoder.channel_mult == (1, 2)
    assert model.audio_encoder.channel_mult == (1, 2, 4)
    decoder = model.decoder
    assert (decoder.image_size, decoder.image_channels, decoder.width) == (32, 4, 320)
    assert (decoder.num_res_blocks, decoder.num_heads) == (2, 8)
    assert decoder.channel_mult == (1, 2, 4, 4)
    assert sorted(32 // factor for factor in decoder.attention_factors) == [8, 16, 32]
    generator = config.generator_model
    assert (generator.latents.video_size, generator.latents.video_channels) == (16, 16)
    assert (generator.width, generator.num_heads, generator.depth) == (1152, 16, 28)
    assert generator.mlp_ratio == 4
    assert config.clip.num_samples == config.mel_image.num_samples == 70_560


def test_published_presets_have_the_known_parameter_counts():
    """The decoder's latent maps have 16 pooled inputs each, not the release's 4,096 and 1,024."""
    config = mm_ldm.landscape()
    with torch.device("meta"):
        first_stage = KLVAE(config.first_stage.model)
        model = MultiModalAutoencoder(config.autoencoder.model)
    assert count(first_stage) == 83_653_863
    assert count(model.video_encoder) == 142_624_000
    assert count(model.audio_encoder) == 201_382_400
    assert count(model.video_projector) == 45_997_568
    assert count(model.audio_projector) == 33_897_984
    assert count(model.class_head) == 21_835_785
    assert count(model.contrastive_head) == 21_633_538
    assert count(model.decoder) == 871_725_764 - 1280 * (4096 - 16 + 1024 - 16)


def test_the_data_sets_differ_only_where_the_source_says_so():
    landscape, aist, audioset = mm_ldm.landscape(), mm_ldm.aist(), mm_ldm.audioset()
    assert aist.autoencoder.model.decoder.num_classes == 60
    assert aist.autoencoder.loss.kl_weight == 1e-9
    assert landscape.autoencoder.loss.kl_weight == 1e-6
    assert audioset.clip.num_samples == 176_400
    assert audioset.autoencoder.model.decoder.num_classes == 0
    assert not audioset.adversarial.enabled
    steps = landscape.autoencoder.train.epochs * mm_ldm.LANDSCAPE_EPOCH / 160
    assert steps == pytest.approx(16_000, rel=0.01)


def test_audiosets_budget_is_that_of_two_and_three_days_on_two_cards():
    audioset, card = mm_ldm.audioset(), 0.3 * 312e12
    image, decoder = 272.7e9, 360.8e9 * 3 / 2  # one pass of the first stage; three images decoded
    encoders = (128.9 + 285.8 / 8 + 32.2 + 17.8 + 1.9 + 0.6) * 1e9
    for train, days, work in (
        (audioset.autoencoder.train, 2, 7 * image + 4 * (encoders + decoder)),
        (audioset.generator.train, 3, 5 * image + (128.9 + 32.2) * 1e9 + 3 * 377e9),
    ):
        seconds = train.total_samples * work / (2 * card)
        assert seconds / 86_400 == pytest.approx(days, rel=0.03)
        assert train.total_samples % train.global_batch_size == 0


def test_parts_that_do_not_fit_are_named():
    values = config_to_json(smaller.small())
    values["mel_image"]["image_size"] = 128
    with pytest.raises(Exception, match=r"mel_image\.image_size is 128"):
        config_from_json(MMLDMConfig, values, "test")
    values = config_to_json(smaller.small())
    values["data"]["flip_probability"] = 0.5
    with pytest.raises(Exception, match="cache_first_stage"):
        config_from_json(MMLDMConfig, values, "test")
    values = config_to_json(smaller.small())
    values["diffusion"]["prediction_type"] = "epsilon"
    values["mel_image"]["sample_rate"] = 44_100
    with pytest.raises(Exception, match=r"sample_rate is 44100.*prediction_type is v"):
        config_from_json(MMLDMConfig, values, "test")


def test_what_is_of_single_frames_needs_coefficients_of_all_frames():
    config = smaller.scenes()
    axes = config.latent_axes
    assert (axes.num_axes, axes.num_frames, axes.movement_axes) == (256, 16, 64)
    assert smaller.small().latent_axes.num_frames == 1
    with pytest.raises(ValueError, match="set num_axes too"):
        replace(config.generator, num_axes=0)
    with pytest.raises(ValueError, match="movement_axes is 0 or more, got -1"):
        replace(config.generator, movement_axes=-1)
    eight = replace(config.generator.model, frame_tokens=8)
    with pytest.raises(ValueError, match=r"frame_tokens need a z_v of all cosine coefficients"):
        replace(config, generator=replace(config.generator, model=eight))
    small = smaller.small()  # its z_v holds eight of sixteen coefficients
    with pytest.raises(ValueError, match=r"video_encoder\.stacked_frames"):
        replace(small, generator=replace(small.generator, movement_axes=64))
    model = replace(small.generator.model, frame_tokens=16)
    with pytest.raises(ValueError, match=r"video_encoder\.stacked_frames"):
        replace(small, generator=replace(small.generator, model=model))


def test_weights_of_a_first_stage_without_our_shortcut_are_refused_where_it_is_asked_for():
    first_stage = smaller.small().first_stage
    with pytest.raises(ValueError, match=r"set first_stage.model.linear_shortcut=False"):
        replace(first_stage, weights="vae.safetensors")
    plain = replace(first_stage.model, linear_shortcut=False)
    assert replace(first_stage, model=plain, weights="vae.safetensors").weights


@pytest.mark.parametrize("name", ["index_scale", "index_gate_channels", "stacked_frames"])
def test_what_concerns_frames_is_no_setting_of_the_audio_encoder(name, tmp_path):
    """Files of earlier releases say it all the same, without effect."""
    stored = config_to_json(tiny())
    encoder = stored["autoencoder"]["model"]["audio_encoder"]
    assert name not in encoder
    assert name in stored["autoencoder"]["model"]["video_encoder"]
    encoder[name] = 7
    assert config_from_json(MMLDMConfig, stored, "config.json") == tiny()
    path = tmp_path / "mine.yaml"
    path.write_text(f"autoencoder: {{model: {{audio_encoder: {{{name}: 7}}}}}}")
    with pytest.raises(ConfigError, match=f"audio_encoder.{name} has no effect"):
        merge_file(tiny(), path)
