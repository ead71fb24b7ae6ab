"""Pictures that nobody asks for are not decoded, and those asked for are the same bit by bit."""

from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.media.decode import read_frames
from soundreel.media.skipping import at_rate
from soundreel.media.video_track import timed_frames

RATE = 30
COUNT = 90
ONE, TWO = {"threads": "1"}, {"threads": "2"}  # else an encoder has a thread for each processor
B_FRAMES = {"bf": "3", "preset": "veryfast"} | ONE
KINDS = {
    "h264.mp4": ("libx264", B_FRAMES | {"x264-params": "b-pyramid=normal:keyint=40"}),
    "h264-open.mkv": ("libx264", B_FRAMES | {"x264-params": "open-gop=1:keyint=20"}),
    "h264.ts": ("libx264", B_FRAMES),
    "h264-interlaced.mp4": ("libx264", B_FRAMES | {"x264-params": "interlaced=1"}),
    "mjpeg.avi": ("mjpeg", TWO),
    "mpeg4.avi": ("mpeg4", {"bf": "2"} | TWO),
    "mpeg2.mpg": ("mpeg2video", {"bf": "2"} | ONE),
    "mpeg2-halves.mpg": ("mpeg2video", {"bf": "2"} | TWO),
    "mpeg1.mpg": ("mpeg1video", {"bf": "2"} | ONE),
}
SKIPPING = ("h264.mp4", "h264-open.mkv", "h264.ts", "mjpeg.avi")


def write(path, codec, options, ticks=None):
    """A bright square that moves over grain; picture k is shown from `ticks[k]` 120ths on."""
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 60, (64, 64 + COUNT, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if ticks is not None:
            stream.codec_context.time_base = Fraction(1, 4 * RATE)
        for k in range(COUNT):
            picture = grain[:, k : k + 64].copy()
            picture[20:36, k % 48 : k % 48 + 16] = 230
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = 4 * k if ticks is None else ticks[k], Fraction(1, 4 * RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skipping")
    for name, (codec, options) in KINDS.items():
        write(folder / name, codec, options)
    return folder


def decoded(path, is_wanted):
    """Times of the pictures that were decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        zero = next(timed_frames(container, stream, Fraction(0), Fraction(0))).begin
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [f.begin for f in timed_frames(container, stream, zero, Fraction(0), is_wanted)]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("rate", "start"), [(10, 0), (Fraction(6), Fraction(1, 3)), (4, Fraction(9, 4)), (25, 0)]
)
def test_pictures_at_a_lower_rate_are_those_of_the_full_rate(folder, name, rate, start):
    full = list(read_frames(folder / name, frame_rate=RATE))
    assert len(full) >= COUNT  # two ticks of an AVI file are two pictures
    chosen = list(read_frames(folder / name, frame_rate=rate, start=start))
    assert len(chosen) >= int((3 - start) * rate) - 1
    for k, picture in enumerate(chosen):
        assert np.array_equal(picture, full[int((start + Fraction(k) / rate) * RATE)])


@pytest.mark.parametrize("name", KINDS)
def test_only_codecs_that_tell_what_nothing_refers_to_are_not_decoded_whole(folder, name):
    every = decoded(folder / name, None)
    some = decoded(folder / name, at_rate(Fraction(0), Fraction(10)))
    assert len(every) == COUNT
    assert set(some) <= set(every)
    assert {Fraction(3 * k, RATE) for k in range(30)} <= {
        round(t * RATE) / Fraction(RATE) for t in some
    }
    if name in SKIPPING:
        assert len(some) < 0.8 * COUNT
    else:
        assert some == every


def test_of_pictures_that_stand_alone_only_the_wanted_and_the_last_are_decoded(folder):
    some = decoded(folder / "mjpeg.avi", at_rate(Fraction(0), Fraction(10)))
    assert len([time for time in some if time < Fraction(5, 2)]) == 25


@pytest.mark.parametrize("seed", range(4))
def test_pictures_with_times_of_any_distance_are_chosen_as_if_all_were_decoded(tmp_path, seed):
    rng = np.random.default_rng(seed)
    ticks = np.cumsum(rng.choice([1, 2, 4, 9, 40], COUNT, p=[0.3, 0.2, 0.3, 0.15, 0.05])).tolist()
    ticks = [tick - ticks[0] for tick in ticks]
    path = write(tmp_path / "odd.mkv", *KINDS["h264.mp4"], ticks)
    with av.open(str(path)) as container:
        stored = [(f.pts * f.time_base, f.to_ndarray(format="gray")) for f in container.decode()]
    rate = Fraction(9)
    chosen = list(read_frames(path, frame_rate=rate))
    assert len(chosen) > 20
    for k, picture in enumerate(chosen):
        shown = [grey for begin, grey in stored if begin <= k / rate + Fraction(1, 1000)][-1]
        assert np.abs(picture.mean(axis=-1) - shown).mean() < 12


def test_after_damage_every_picture_is_decoded(folder, tmp_path):
    content = bytearray((folder / "mjpeg.avi").read_bytes())
    picture = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"][30]
    content[picture : picture + 600] = bytes(600)
    path = tmp_path / "damaged.avi"
    path.write_bytes(content)
    wanted = at_rate(Fraction(0), Fraction(10))
    some = decoded(path, wanted)
    after = [time for time in some if time > 1]
    assert len(after) == COUNT - 31 > len(set(decoded(folder / "mjpeg.avi", wanted)) & set(after))
    assert len(list(read_frames(path, frame_rate=10))) == 30
