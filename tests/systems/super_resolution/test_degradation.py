"""The damage done to small images in super-resolution training."""

import pytest
import torch

from soundreel.data.loader import Batch
from soundreel.systems.super_resolution.degradation import (
    DegradationConfig,
    degrade,
    image_pairs,
    jpeg_round_trip,
    reduce_images,
)
from soundreel.types import AV


def picture(size=64):
    """Smooth colours with an edge, in [-1, 1]."""
    ramp = torch.linspace(-1, 1, size)
    rgb = torch.stack(
        [ramp.expand(size, size), ramp[:, None].expand(size, size), -ramp * ramp[:, None]]
    )
    rgb[:, size // 4 : size // 2, size // 3 :] = 0.8
    return rgb


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def only(**changes):
    settings = {"low_res_size": 32, "noise_probability": 0.0, "jpeg_probability": 0.0}
    return DegradationConfig(**(settings | changes))


def test_reducing_gives_whole_grey_levels_close_to_the_block_means():
    image = picture()[None]
    small = reduce_images(image, only())
    assert small.shape == (1, 3, 32, 32)
    levels = (small + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    means = torch.nn.functional.avg_pool2d(image, 2)
    assert float((small - means).abs().mean()) < 0.01


def test_only_antialiasing_removes_a_pattern_too_fine_for_the_small_image():
    stripes = torch.ones(64).where(torch.arange(64) % 4 < 2, torch.tensor(-1.0))
    image = (0.8 * stripes).expand(1, 3, 64, 64)
    spread = {
        antialias: float(reduce_images(image, only(low_res_size=16, antialias=antialias)).std())
        for antialias in (True, False)
    }
    assert spread[True] < 0.1
    shifted = image.roll(1, dims=-1)
    aliased = reduce_images(shifted, only(low_res_size=16, antialias=False))
    assert float(aliased.abs().mean()) > 0.5


def test_without_damage_the_image_passes_unchanged():
    small = reduce_images(picture()[None], only())[0]
    torch.testing.assert_close(degrade(small, only(), generator()), small, atol=1e-6, rtol=0)


def test_noise_has_the_stated_strength_and_is_not_clipped():
    white = torch.ones(3, 128, 128)
    config = only(noise_probability=1.0, noise_sigma=(20.0, 20.0))
    noisy = degrade(white, config, generator())
    assert float((noisy - white).std() * 127.5) == pytest.approx(20.0, rel=0.02)
    assert float(noisy.max()) > 1.2


def test_sigmas_are_uniform_and_both_kinds_come_half_of_the_time():
    grey = torch.zeros(3, 32, 32)
    config = DegradationConfig(low_res_size=32, jpeg_probability=0.0)
    g = generator()
    sigmas = torch.tensor([float(degrade(grey, config, g).std() * 127.5) for _ in range(600)])
    assert float((sigmas > 0).float().mean()) == pytest.approx(0.5, abs=0.06)
    used = sigmas[sigmas > 0]
    assert float(used.max()) <= 21
    assert float(used.mean()) == pytest.approx(10.0, abs=1.0)


def test_jpeg_keeps_channels_in_place_and_lower_quality_loses_more():
    levels = (picture() + 1) * 127.5
    errors = [float((jpeg_round_trip(levels, q) - levels).abs().mean()) for q in (95, 50, 20)]
    assert errors == sorted(errors)
    assert errors[0] < 3
    # A red image stays red: RGB is not taken for BGR.
    red = torch.zeros(3, 16, 16)
    red[0] = 255
    assert jpeg_round_trip(red, 80).mean(dim=(1, 2)).argmax() == 0


def test_jpeg_qualities_span_the_stated_range(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "soundreel.systems.super_resolution.degradation.jpeg_round_trip",
        lambda x, q: (seen.append(q), x)[1],
    )
    config = only(jpeg_probability=1.0, jpeg_quality=(20, 23))
    g = generator()
    for _ in range(200):
        degrade(torch.zeros(3, 4, 4), config, g)
    assert set(seen) == {20, 21, 22, 23}


def batch(first, count=3, frames=1):
    video = torch.stack([picture() * (0.5 + 0.1 * i) for i in range(first, first + count)])
    return Batch(
        av=AV(video[:, None].expand(-1, frames, -1, -1, -1), None),
        label=torch.full((count,), -1),
        keys=tuple("abc"[:count]),
        start_frames=(0,) * count,
        sample_index=first,
    )


def test_pairs_depend_on_the_seed_and_the_sample_number_alone():
    config = DegradationConfig(low_res_size=32)
    whole = list(image_pairs([batch(0), batch(3)], config, seed=5))
    (resumed,) = image_pairs([batch(3)], config, seed=5)
    assert torch.equal(resumed.low_res, whole[1].low_res)
    (single,) = image_pairs([batch(4, 1)], config, seed=5)
    assert torch.equal(single.low_res[0], whole[1].low_res[1])
    (other,) = image_pairs([batch(3)], config, seed=6)
    assert not torch.equal(other.low_res, resumed.low_res)
    assert whole[0].av["video"].shape == (3, 3, 64, 64)
    assert whole[1].sample_index == 3
    assert whole[0].low_res.shape == (3, 3, 32, 32)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="windows of 2"):
        next(image_pairs([batch(0, frames=2)], DegradationConfig(low_res_size=32), seed=0))
    with pytest.raises(ValueError, match="64x64 do not reduce to 48 pixels"):
        next(image_pairs([batch(0)], DegradationConfig(low_res_size=48), seed=0))
    with pytest.raises(ValueError, match="noise_probability must be in"):
        DegradationConfig(noise_probability=1.5)
    with pytest.raises(ValueError, match="jpeg range must be ascending"):
        DegradationConfig(jpeg_quality=(80, 20))
