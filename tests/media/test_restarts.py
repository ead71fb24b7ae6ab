"""Transport streams joined byte by byte are read as one film, whatever times their parts have."""

from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.media.decode import read_audio, read_frames

RATE = 16_000
CODECS = {"mono": "mp2", "stereo": "ac3", "5.1": "ac3"}


def write_part(path, first, seconds, layout="stereo", *, frame_rate=10, rate=48_000):
    """Frames of grey levels 5 k from `first` on, and a click in every channel at half time."""
    num_frames = seconds * frame_rate
    channels = av.AudioLayout(layout).nb_channels
    sound = np.zeros((channels, seconds * rate), np.float32)
    middle = seconds * rate // 2
    sound[:, middle : middle + rate // 200] = 0.5
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=frame_rate, options={"g": "10"})
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream(CODECS[layout], rate=rate, layout=layout)
        packets = []
        for k in range(num_frames):
            picture = np.full((32, 32, 3), 5 * ((first + k) % 50), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, frame_rate)
            packets += video.encode(frame)
        block = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(sound.T).reshape(1, -1), format="flt", layout=layout
        )
        block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), 0
        packets += [*video.encode(None), *audio.encode(block), *audio.encode(None)]
        for packet in sorted(packets, key=lambda one: one.dts * one.time_base):
            container.mux(packet)
    return path.read_bytes()


def levels(frames):
    return [round(float(frame.mean()) / 5) for frame in frames]


def clicks_s(sound, rate=RATE):
    """Where the sound is loud: the first of all samples within each tenth of a second."""
    loud = np.flatnonzero(np.abs(sound[0]) > 0.1) / rate
    return loud[np.diff(loud, prepend=-1) > 0.1]


@pytest.mark.parametrize(
    "layouts", [("stereo", "stereo"), ("stereo", "5.1"), ("5.1", "stereo", "5.1")]
)
def test_parts_follow_one_another_in_picture_and_sound(tmp_path, layouts):
    parts = [
        write_part(tmp_path / "part.ts", 20 * number, 2, layout)
        for number, layout in enumerate(layouts)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(parts))
    frames = levels(read_frames(path, frame_rate=10))
    assert frames == [k % 50 for k in range(20 * len(parts))]
    sound = read_audio(path, sample_rate=RATE, num_channels=1)
    assert abs(sound.shape[1] / RATE - 2 * len(parts)) < 0.1
    # Each part begins when picture and sound of the one before have ended, a block of sound later.
    expected = 1 + 2 * np.arange(len(parts))
    np.testing.assert_allclose(clicks_s(sound), expected, atol=0.04)


def test_pieces_deep_in_joined_parts_equal_those_of_the_whole(tmp_path):
    path = tmp_path / "joined.ts"
    part = write_part(tmp_path / "part.ts", 0, 20, "mono", frame_rate=5)
    path.write_bytes(part + part)
    whole = np.stack(list(read_frames(path, frame_rate=5)))
    assert len(whole) == 200
    piece = np.stack(list(read_frames(path, frame_rate=5, start=30, num_frames=10)))
    assert np.array_equal(piece, whole[150:160])
    sound = read_audio(path, sample_rate=RATE)
    np.testing.assert_allclose(clicks_s(sound), [10, 30], atol=0.04)
    part = read_audio(path, sample_rate=RATE, start=35, num_samples=RATE)
    np.testing.assert_allclose(part, sound[:, 35 * RATE : 36 * RATE], atol=2e-6)


def test_a_single_part_is_still_reached_by_seeking(tmp_path):
    path = tmp_path / "single.ts"
    write_part(path, 0, 40, "mono", frame_rate=5)
    whole = np.stack(list(read_frames(path, frame_rate=5)))
    piece = np.stack(list(read_frames(path, frame_rate=5, start=36, num_frames=5)))
    assert np.array_equal(piece, whole[180:185])
    sound = read_audio(path, sample_rate=RATE)
    part = read_audio(path, sample_rate=RATE, start=35, num_samples=RATE)
    assert np.abs(part - sound[:, 35 * RATE : 36 * RATE]).max() < 1e-3
