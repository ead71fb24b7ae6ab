"""Resizing equals the Python Imaging Library bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from soundreel.audio.resize import resize, resize_uint8

SIZES = [
    ((80, 275), (256, 256)),
    ((256, 256), (80, 275)),
    ((80, 275), (64, 64)),
    ((128, 689), (128, 128)),
    ((7, 5), (13, 29)),
    ((64, 64), (64, 64)),
    ((40, 64), (64, 64)),
    ((300, 20), (90, 52)),
    ((30, 200), (90, 52)),
]


def pictures(height, width):
    """Noise, where every rounding shows, and black-and-white edges, where bicubic overshoots."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height, width), dtype=np.uint8)
    return noise, (noise > 127).astype(np.uint8) * 255


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_eight_bit_resizing_is_bit_equal_to_pillow(source, target):
    for picture in pictures(*source):
        widened = Image.fromarray(picture).resize((target[1], source[0]), Image.Resampling.BICUBIC)
        image = widened.resize(target[::-1], Image.Resampling.BICUBIC)
        assert np.array_equal(resize_uint8(torch.from_numpy(picture), *target), np.asarray(image))


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_float_resizing_equals_pillow_in_float_mode(source, target):
    picture = pictures(*source)[0].astype(np.float32) / 255
    image = Image.fromarray(picture).resize(target[::-1], Image.Resampling.BICUBIC)
    got = resize(torch.from_numpy(picture), *target)
    assert np.allclose(got, np.asarray(image), atol=1e-5)


def test_batches_and_channels_are_resized_one_by_one():
    picture = torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8)
    together = resize_uint8(picture, 5, 16)
    assert together.shape == (2, 3, 5, 16)
    assert torch.equal(together[1, 2], resize_uint8(picture[1, 2], 5, 16))
