"""Which part of a picture is kept, and that its colours and places are right."""

from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.media.framing import Framing
from soundreel.media.picture import PictureConverter, reframe


def ramp(height, width):
    """Red grows to the right, green downwards."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width).astype(np.uint8)[None]
    image[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return image


def test_the_centre_square_of_a_wide_picture_is_its_middle():
    assert Framing.center_square(64).crop(height=90, width=160) == (35, 0, 90, 90)
    assert Framing.center_square(64).crop(height=160, width=90) == (0, 35, 90, 90)
    assert Framing(height=30, width=60).crop(height=100, width=100) == (0, 25, 100, 50)
    image = ramp(90, 160)
    framed = reframe(image, Framing.center_square(90))
    assert np.array_equal(framed, image[:, 35:125])


def test_a_box_is_cut_exactly_where_it_was_asked_for():
    image = ramp(48, 64)
    box = Framing(kind="box", height=21, width=13, box=(7, 5, 13, 21))
    assert np.array_equal(reframe(image, box), image[5:26, 7:20])


def test_a_letterbox_shows_the_whole_picture_with_black_around_it():
    framing = Framing.letterbox(64)
    assert framing.scaled(height=90, width=160) == (0, 14, 64, 36)
    framed = reframe(np.full((90, 160, 3), 200, np.uint8), framing)
    assert framed.shape == (64, 64, 3)
    assert not framed[:14].any()
    assert not framed[50:].any()
    assert np.abs(framed[16:48].astype(int) - 200).max() <= 1


def test_an_enlarged_picture_stays_in_place():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 200
    large = reframe(image, Framing(height=64, width=64)).astype(int)
    assert large[:, :24].max() <= 30
    assert large[:, 40:].min() >= 180
    assert abs(large[32, 31, 0] + large[32, 32, 0] - 200) <= 4  # the edge lies between 31 and 32


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = reframe(stripes, Framing(height=16, width=16))
    assert np.abs(small[1:-1, 1:-1].astype(int) - 127).max() <= 3


@pytest.mark.parametrize(("matrix", "red", "blue"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114)])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_the_matrix_and_range_that_the_file_names(matrix, red, blue, full_range):
    planes = np.full((72, 48), 200, np.uint8)
    planes[:48], planes[48:60] = 100, 90  # Y, U, V = 100, 90, 200 of yuv420p
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts, frame.time_base = 0, Fraction(1)
    frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
    y, u, v = (
        (100 / 255, (90 - 128) / 255, (200 - 128) / 255)
        if full_range
        else ((100 - 16) / 219, (90 - 128) / 224, (200 - 128) / 224)
    )
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    pixel = PictureConverter(None)(frame)[24, 24]
    np.testing.assert_allclose(pixel, 255 * np.array([r, g, b]), atol=1)


def test_impossible_framings_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        Framing.center_square(0)
    with pytest.raises(ValueError, match="exactly for kind 'box'"):
        Framing(kind="box", height=8, width=8)
    with pytest.raises(ValueError, match="exactly for kind 'box'"):
        Framing(height=8, width=8, box=(0, 0, 4, 4))
    with pytest.raises(ValueError, match="left, top, width, height"):
        Framing(kind="box", height=8, width=8, box=(-1, 0, 4, 4))
