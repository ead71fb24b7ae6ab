"""Stored pictures of any orientation, pixel shape, size and colour matrix come out as meant."""

import gc
from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.media.decode import read_frames
from soundreel.media.framing import Framing
from soundreel.media.orientation import orientation_of
from soundreel.media.picture import PictureConverter
from soundreel.media.probe import probe

HEIGHT, WIDTH = 48, 64


def scene(height=HEIGHT, width=WIDTH):
    """A picture without any symmetry: four corners of four colours, of unequal sizes."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[: height // 4, : width // 4] = (220, 30, 30)
    image[: height // 4, -width // 8 :] = (30, 220, 30)
    image[-height // 8 :, : width // 4] = (30, 30, 220)
    return image


def write(path, pictures, *, codec="libx264", rate=10, matrix=None, aspect=None, **context):
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        for name, value in context.items():
            setattr(video.codec_context, name, value)
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            video.set_display_matrix(matrix)
        for k, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, rate)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


ONE = 1 << 16
ORIENTATIONS = {
    "as stored": ((1, 0, 0, 1), lambda p: p),
    "turned to the left": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "upside down": ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
    "turned to the right": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "mirrored": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "mirrored upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "rows and columns exchanged": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "exchanged the other way": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].transpose(1, 0, 2)),
}


def placed(picture, matrix):
    """The picture after each stored pixel was put where the display matrix says."""
    a, b, c, d = matrix
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    new_x, new_y = a * x + c * y, b * x + d * y
    new_x, new_y = new_x - new_x.min(), new_y - new_y.min()
    out = np.zeros((new_y.max() + 1, new_x.max() + 1, 3), picture.dtype)
    out[new_y, new_x] = picture
    return out


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations_come_out_upright(tmp_path, name, container):
    matrix, turn = ORIENTATIONS[name]
    a, b, c, d = (ONE * value for value in matrix)
    path = tmp_path / f"turned.{container}"
    write(path, [scene()] * 3, matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    with av.open(str(path)) as made:
        frame = next(made.decode(video=0))
        if "DISPLAYMATRIX" not in [one.type.name for one in frame.side_data] and matrix[0] != 1:
            pytest.skip("the container cannot hold a mirror")
    expected = placed(scene(), matrix)
    assert np.array_equal(expected, turn(scene()))
    (shown, *_) = read_frames(path, frame_rate=10)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 5
    info = probe(path)
    assert (info.height, info.width) == expected.shape[:2]
    mirrored = scene()[:, ::-1] if info.is_mirrored else scene()
    assert np.array_equal(np.rot90(mirrored, info.rotation // 90), expected)


def circle(height, width, aspect):
    """A disc on black as wide as it is high once pixels are `aspect` times as wide as high."""
    y, x = np.mgrid[:height, :width].astype(float)
    radius = 0.4 * height
    inside = ((x - (width - 1) / 2) * aspect) ** 2 + (y - (height - 1) / 2) ** 2 <= radius**2
    return np.where(inside, 235, 16).astype(np.uint8)[:, :, None].repeat(3, axis=2)


def extent(picture):
    """Height and width of what is bright."""
    bright = picture[:, :, 1] > 120
    return np.ptp(np.flatnonzero(bright.any(axis=1))) + 1, np.ptp(
        np.flatnonzero(bright.any(axis=0))
    ) + 1


@pytest.mark.parametrize(
    ("size", "aspect", "shown"),
    [
        ((144, 180), Fraction(64, 45), (144, 256)),  # PAL 16:9, a quarter of its size
        ((144, 180), Fraction(16, 15), (144, 192)),  # PAL 4:3
        ((120, 180), Fraction(8, 9), (120, 160)),  # NTSC 4:3
        ((270, 360), Fraction(4, 3), (270, 480)),  # HDV
    ],
)
@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "mpg"])
def test_circles_stay_circles_where_pixels_are_not_square(tmp_path, size, aspect, shown, container):
    path = tmp_path / f"oval.{container}"
    codec = "mpeg2video" if container == "mpg" else "libx264"
    rate = 25 if container == "mpg" else 10
    pictures = [circle(*size, aspect)] * 5
    write(path, pictures, codec=codec, rate=rate, aspect=aspect, bit_rate=4_000_000)
    info = probe(path)
    assert (info.stored_height, info.stored_width) == size
    assert info.height == shown[0]
    assert abs(info.width - shown[1]) <= (2 if container == "mpg" else 0)  # MPEG-2 rounds shapes
    frame = next(read_frames(path, frame_rate=10))
    assert frame.shape[:2] == (info.height, info.width)
    high = info.height
    for framing in (
        None,
        Framing(height=80, width=80),
        Framing.letterbox(96),
        Framing(height=60, width=100),
        Framing(kind="box", height=64, width=64, box=((info.width - high) // 2, 0, high, high)),
    ):
        height, width = extent(next(read_frames(path, frame_rate=10, framing=framing)))
        assert abs(height - width) <= 2, framing


def test_a_box_is_measured_in_the_square_pixels_that_are_shown(tmp_path):
    """Columns 100 to 132 of the stored picture, twice as wide as high, are bright."""
    picture = np.full((128, 256, 3), 16, np.uint8)
    picture[32:96, 100:132] = 235
    path = write(tmp_path / "box.mp4", [picture] * 3, aspect=Fraction(2))
    box = Framing(kind="box", height=64, width=64, box=(200, 32, 64, 64))
    assert next(read_frames(path, frame_rate=10, framing=box)).min() > 215
    wider = Framing(kind="box", height=64, width=64, box=(168, 32, 128, 64))
    columns = next(read_frames(path, frame_rate=10, framing=wider))[32, :, 0]
    assert (columns[18:46] > 215).all()
    assert (columns[:14] < 40).all()
    assert (columns[50:] < 40).all()


def join(path, parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.fixture
def changing(tmp_path):
    """A transport stream: ten pictures of 64 x 48, then ten of 96 x 48, white in the middle."""
    parts = []
    for number, (height, width) in enumerate(((48, 64), (48, 96))):
        picture = np.full((height, width, 3), 16, np.uint8)
        picture[height // 4 : -height // 4, width // 4 : -width // 4] = 235
        part = tmp_path / f"part{number}.ts"
        with av.open(str(part), "w") as container:
            video = container.add_stream("libx264", rate=10, options={"bf": "0"})
            video.height, video.width, video.pix_fmt = height, width, "yuv420p"
            for k in range(10):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = 10 * number + k, Fraction(1, 10)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        parts.append(part)
    return join(tmp_path / "changing.ts", parts)


def test_pictures_of_another_size_are_fitted_whole_into_the_first(changing):
    frames = np.stack(list(read_frames(changing, frame_rate=10)))
    assert frames.shape == (20, 48, 64, 3)
    assert Clip.load(changing).frames.shape == (20, 48, 64, 3)
    assert (frames[9, 12:36, 17:47, 1] > 200).all()
    later = frames[19, :, :, 1]  # 96 x 48 becomes 64 x 32, with 8 rows of black above and below
    assert later[:8].max() == later[40:].max() == 0
    assert (later[18:30, 18:46] > 200).all()
    assert (later[9:14] < 60).all()


@pytest.mark.parametrize(
    "framing",
    [
        Framing(height=24, width=24),
        Framing.letterbox(32),
        Framing(kind="box", height=12, width=20, box=(22, 18, 20, 12)),
    ],
)
def test_framed_pictures_keep_one_size_when_the_source_changes(changing, framing):
    frames = np.stack(list(read_frames(changing, frame_rate=10, framing=framing)))
    assert frames.shape == (20, framing.height, framing.width, 3)
    middle = frames[:, framing.height // 2, framing.width // 2, 1]
    assert (middle > 200).all()
    if framing.kind == "box":  # the same place of the fitted picture: wholly within the white
        assert frames.min() > 200


RED = (200, 40, 40)


def luma_of(colour, red_weight, blue_weight):
    """8-bit luma and chroma of a colour, by the definition of BT.601 and BT.709."""
    red, green, blue = (value / 255 for value in colour)
    y = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    cb = (blue - y) / (2 * (1 - blue_weight))
    cr = (red - y) / (2 * (1 - red_weight))
    return round(16 + 219 * y), round(128 + 224 * cb), round(128 + 224 * cr)


BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


@pytest.mark.parametrize(
    ("height", "width", "meant"),
    [
        (576, 720, BT601),
        (576, 1024, BT601),
        (480, 640, BT601),
        (718, 960, BT601),
        (720, 960, BT709),
        (720, 1280, BT709),
        (544, 1280, BT709),
        (1280, 720, BT709),
    ],
)
def test_pictures_that_tell_no_colour_matrix_are_taken_as_players_take_them(height, width, meant):
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, value in zip(frame.planes, luma_of(RED, *meant), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.pts, frame.time_base = 0, Fraction(1)
    shown = PictureConverter(Framing(height=16, width=16))(frame)
    assert np.abs(shown.astype(int) - RED).max() <= 3
    frame.colorspace = 5  # told to be BT.601: that decides
    told = PictureConverter(None)(frame)
    assert (np.abs(told[0, 0].astype(int) - RED).max() <= 3) == (meant is BT601)


def test_a_slide_that_stands_for_seventy_seconds_is_no_damage(tmp_path):
    path = tmp_path / "slides.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.height, video.width, video.pix_fmt = 16, 16, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        for seconds, level in ((0, 40), (1, 120), (71, 200), (72, 240)):
            picture = np.full((16, 16, 3), level, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = 1000 * seconds, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    levels = [round(float(frame.mean()) / 40) for frame in read_frames(path, frame_rate=1)]
    assert levels == [1, *[3] * 70, 5]
    late = read_frames(path, frame_rate=1, start=60, num_frames=12)
    assert [round(float(frame.mean()) / 40) for frame in late] == [*[3] * 11, 5]


def test_a_picture_is_gone_when_it_is_no_longer_used():
    def kept_by_cycles(look):
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        gc.collect()
        gc.disable()
        try:
            look(frame)
            del frame
            return gc.collect()
        finally:
            gc.enable()

    orientation_of(av.VideoFrame(16, 16, "rgb24"))  # whatever is made once is made now
    assert kept_by_cycles(lambda frame: frame.side_data) > 0  # so this test can fail
    assert kept_by_cycles(orientation_of) == 0
