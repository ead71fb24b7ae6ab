"""Decoding latents: chunks, shared noise, guidance, one known modality."""

from dataclasses import replace

import pytest
import torch

from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import scaled_linear_schedule
from soundreel.systems.mm_ldm.decoding import DecodingConfig, decode, starting_noise
from soundreel.types import AV

CONFIG = DecodingConfig(num_steps=2, video_guidance_scale=1.0, audio_guidance_scale=1.0)


@pytest.fixture
def model(make_config, make_model):
    return make_model(make_config(num_frames=6, key_frames=(0, 3)))


@pytest.fixture
def latent():
    generator = torch.Generator().manual_seed(3)
    return AV(*(torch.randn(2, 6, 4, 4, generator=generator) for _ in range(2)))


def run(model, latent, config, seeds=(1, 2), **options):
    xt = starting_noise(model, 2, 6, PerSampleNoise(seeds), config)
    return decode(model, latent, xt, scaled_linear_schedule(), config, **options)


def test_chunks_change_memory_and_nothing_else(model, latent):
    guided = replace(CONFIG, video_guidance_scale=2.0)
    whole = run(model, latent, guided)
    parts = run(model, latent, replace(guided, frame_chunk=4))
    torch.testing.assert_close(whole["video"], parts["video"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole["audio"], parts["audio"], atol=1e-4, rtol=1e-4)
    assert whole["video"].shape == (2, 6, 4, 8, 8)


def test_never_more_frames_than_a_chunk_are_denoised_at_once(model, latent, monkeypatch):
    counts, decoder = [], model.decoder

    def count(xt, timestep, condition):
        counts.append(0 if xt.video is None else xt.video.shape[1])
        return type(decoder).forward(decoder, xt, timestep, condition)

    monkeypatch.setattr(decoder, "forward", count)
    run(model, latent, replace(CONFIG, video_guidance_scale=2.0, frame_chunk=4))
    assert counts == 4 * [4] + 4 * [2], "2 steps, each with and without condition"


def test_frames_can_share_one_starting_noise(model):
    shared = replace(CONFIG, shared_frame_noise=True)
    xt = starting_noise(model, 2, 6, PerSampleNoise([1, 2]), shared)
    assert torch.equal(xt["video"][:, :1].expand(-1, 6, -1, -1, -1), xt["video"])
    own = starting_noise(model, 2, 6, PerSampleNoise([1, 2]), CONFIG)
    assert not torch.equal(own["video"][:, 0], own["video"][:, 1])


def test_a_known_modality_need_not_be_decoded(model, latent):
    xt = starting_noise(model, 2, 6, PerSampleNoise([1, 2]), CONFIG)
    schedule = scaled_linear_schedule()
    both = decode(model, latent, xt, schedule, CONFIG)
    sound = decode(model, latent, AV(None, xt.audio), schedule, CONFIG)
    frames = decode(model, latent, AV(xt.video, None), schedule, CONFIG)
    assert sound.present == ("audio",)
    assert frames.present == ("video",)
    torch.testing.assert_close(sound["audio"], both["audio"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(frames["video"], both["video"], atol=1e-4, rtol=1e-4)


def test_guidance_of_one_modality_leaves_the_other_alone(model, latent):
    plain = run(model, latent, CONFIG)
    guided = run(model, latent, replace(CONFIG, video_guidance_scale=3.0))
    assert not torch.allclose(plain["video"], guided["video"], atol=1e-2)
    torch.testing.assert_close(plain["audio"], guided["audio"], atol=1e-4, rtol=1e-4)


def test_shuffled_semantics_change_the_decoded_clip(model, latent):
    own = model.semantics(latent)
    right = run(model, latent, CONFIG, semantic=own)
    wrong = run(model, latent, CONFIG, semantic=own.map(lambda x: x.flip(0)))
    assert torch.equal(run(model, latent, CONFIG)["video"], right["video"])
    assert not torch.allclose(right["video"], wrong["video"], atol=1e-3)


def test_progress_is_reported_and_steps_must_be_positive(model, latent):
    steps = []
    run(model, latent, CONFIG, callback=lambda step, total, xt: steps.append((step, total)))
    assert steps == [(1, 2), (2, 2)]
    with pytest.raises(ValueError, match="positive"):
        DecodingConfig(num_steps=0)
