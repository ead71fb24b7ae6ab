"""Enlarging clips: shared noise, bounded batches, any size, the sound kept."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch.nn import functional

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import ModelIndex, read_model, save_component, save_model_index
from soundreel.clip import Clip
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.systems import load, load_upscaler
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
    from_residual,
    to_residual,
)
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline, UpscaleConfig

CONFIG = SuperResolutionConfig(
    low_res_size=8,
    size=32,
    width=32,
    channel_mult=(1, 1, 2),
    num_res_blocks=1,
    attention_factors=(4,),
)
FAST = UpscaleConfig(num_steps=2, batch_frames=2)


@pytest.fixture(scope="module")
def pipeline():
    network = SuperResolutionUNet(CONFIG).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return SuperResolutionPipeline(network)


def frames(count=3, height=8, width=8):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, height, width, generator=generator) * 2 - 1


def test_a_frame_does_not_depend_on_the_batch_it_is_in(pipeline):
    low_res = frames(5)
    together = pipeline.upscale_video(low_res, config=UpscaleConfig(num_steps=2, batch_frames=5))
    assert together.shape == (5, 3, 32, 32)
    for size in (1, 2):
        config = UpscaleConfig(num_steps=2, batch_frames=size)
        parts = pipeline.upscale_video(low_res, config=config)
        torch.testing.assert_close(parts, together, atol=1e-5, rtol=0)


def test_equal_frames_stay_equal_because_they_share_their_noise(pipeline):
    still = frames(1).expand(3, -1, -1, -1)
    large = pipeline.upscale_video(still, config=FAST)
    torch.testing.assert_close(large[0], large[2], atol=1e-5, rtol=0)
    other = pipeline.upscale_video(still, seed=1, config=FAST)
    assert float((other - large).abs().max()) > 0.01


class KnowsTheTruth(SuperResolutionUNet):
    """Its v is that of one picture, whatever it is shown."""

    truth = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)

    def forward(self, x, low_res, timestep):
        signal = linear_schedule().alpha_bar.sqrt()[timestep].float()[:, None, None, None]
        noise = (x - signal * self.truth) / (1 - signal**2).sqrt()
        v = signal * noise - (1 - signal**2).sqrt() * self.truth
        return torch.cat([v, torch.zeros_like(v)], dim=1)


def test_a_network_of_velocities_is_read_as_one():
    network = KnowsTheTruth(replace(CONFIG, prediction_type="v"))
    large = SuperResolutionPipeline(network).upscale_video(frames(2), config=FAST)
    torch.testing.assert_close(large, network.truth.expand(2, -1, -1, -1), atol=1e-3, rtol=0)


class KnowsNoDifference(SuperResolutionUNet):
    """Its v is that of an image of zeros: no difference from bicubic enlargement."""

    def forward(self, x, low_res, timestep):
        signal = linear_schedule().alpha_bar.sqrt()[timestep].float()[:, None, None, None]
        return signal * x / (1 - signal**2).sqrt()


def test_a_network_of_differences_adds_them_to_the_bicubic_enlargement():
    config = replace(CONFIG, prediction_type="v", residual_scale=4.0, learned_variance=False)
    large = SuperResolutionPipeline(KnowsNoDifference(config)).upscale_video(frames(3), config=FAST)
    bicubic = functional.interpolate(frames(3), (32, 32), mode="bicubic").clamp(-1, 1)
    torch.testing.assert_close(large, bicubic, atol=1e-3, rtol=0)


def test_differences_and_images_are_each_others_inverse():
    image, low_res = torch.rand(2, 3, 32, 32) * 2 - 1, frames(2)
    for scale in (0.0, 4.0):
        there = to_residual(image, low_res, scale)
        torch.testing.assert_close(from_residual(there, low_res, scale), image)


def test_values_beyond_the_range_count_unless_they_are_clamped(pipeline):
    low_res = frames() * 1.5
    raw = pipeline.upscale_video(low_res, config=FAST)
    clamping = UpscaleConfig(num_steps=2, batch_frames=2, clamp_low_res=True)
    clamped = pipeline.upscale_video(low_res, config=clamping)
    assert not torch.allclose(raw, clamped)
    expected = pipeline.upscale_video(low_res.clamp(-1, 1), config=FAST)
    torch.testing.assert_close(clamped, expected)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (5, 7), (3, 3)])
def test_any_size_is_enlarged_by_the_models_factor(pipeline, height, width):
    large = pipeline.upscale_video(frames(2, height, width), config=FAST)
    assert large.shape == (2, 3, 4 * height, 4 * width)
    assert bool(large.isfinite().all())


def test_bfloat16_is_close_to_float32(pipeline):
    low_res = frames()
    exact = pipeline.upscale_video(low_res, config=FAST)
    config = UpscaleConfig(num_steps=2, batch_frames=2, precision="bfloat16")
    rounded = pipeline.upscale_video(low_res, config=config)
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).abs().mean()) < 0.02


def test_a_clip_keeps_its_sound_and_progress_counts_to_the_end(pipeline):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    sound = np.random.default_rng(1).uniform(-1, 1, (2, 800)).astype(np.float32)
    clip = Clip(pixels, sound, Fraction(10), 1600)
    steps = []
    options = {"num_steps": 2, "batch_frames": 2}
    large = pipeline.upscale_clip(clip, progress=lambda *x: steps.append(x), **options)
    assert large.frames.shape == (5, 32, 32, 3)
    assert large.frame_rate == 10
    assert large.waveform is sound
    assert steps == [(done, 6) for done in range(1, 7)]
    with pytest.raises(ValueError, match="without frames"):
        pipeline.upscale_clip(Clip(None, sound, Fraction(10), 1600))


def test_it_loads_from_a_model_folder_and_names_its_absence(tmp_path, pipeline):
    save_component(tmp_path, "super_resolution", pipeline.network, CONFIG)
    components = {"super_resolution": "super-resolution"}
    save_model_index(tmp_path, ModelIndex(system="mm-diffusion", components=components))
    loaded = SuperResolutionPipeline.load(read_model(tmp_path))
    low_res = frames()
    assert torch.equal(
        loaded.upscale_video(low_res, config=FAST), pipeline.upscale_video(low_res, config=FAST)
    )
    save_component(tmp_path, "unet", pipeline.network, CONFIG)
    save_model_index(
        tmp_path, ModelIndex(system="mm-diffusion", components={"unet": "coupled-unet"})
    )
    with pytest.raises(CheckpointError, match="no model that enlarges clips, only unet"):
        load_upscaler(tmp_path)


def test_impossible_settings_are_named():
    with pytest.raises(ValueError, match="batch_frames must be positive"):
        UpscaleConfig(batch_frames=0)
    for num_steps in (1, 999):
        with pytest.raises(ValueError, match=f"chain of 1000 steps to {num_steps};"):
            UpscaleConfig(num_steps=num_steps)


@pytest.mark.parametrize("num_steps", [*range(2, 33), 50, 100, 200, 1000])
def test_advertised_step_counts_exist(num_steps):
    schedule = respace(linear_schedule(1000), f"ddim{UpscaleConfig(num_steps=num_steps).num_steps}")
    assert len(schedule) == num_steps


def test_a_folder_of_it_alone_is_no_model_to_generate_from(pipeline, tmp_path):
    save_component(tmp_path, "super_resolution", pipeline.network, CONFIG)
    index = ModelIndex(system="mm-diffusion", components={"super_resolution": "super-resolution"})
    save_model_index(tmp_path, index)
    with pytest.raises(CheckpointError, match="soundreel upscale"):
        load(tmp_path)
