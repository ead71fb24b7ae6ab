"""Frames and sound are where they are, whatever the container and wherever a file was cut."""

from fractions import Fraction

import av
import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.data.manifest import load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.decode import read_audio, read_frames
from soundreel.media.probe import probe
from soundreel.metrics.streams import curves_of, open_stream
from soundreel.metrics.sync.score import sync_of_curves

FRAME_RATE, SAMPLE_RATE = 10, 48_000
NUM_FRAMES, FLASH = 30, 11
CLICK = FLASH * SAMPLE_RATE // FRAME_RATE - SAMPLE_RATE // 25  # 40 ms before the flash
CONTAINERS = ("mp4", "mov", "mkv", "ts", "flv")


def grey(level):
    return np.full((64, 64, 3), level, np.uint8)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Three seconds: frame k is of grey level 5 k, but one is white; noise for 5 ms before it."""
    path = tmp_path_factory.mktemp("encoded") / "source.mp4"
    sound = np.zeros((1, NUM_FRAMES * SAMPLE_RATE // FRAME_RATE), np.float32)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, SAMPLE_RATE // 200)
    sound[0, CLICK : CLICK + len(noise)] = noise
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"g": "10", "crf": "12"})
        video.height, video.width, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for k in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(grey(255 if k == FLASH else 5 * k), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound, format="flt", layout="mono")
        block.sample_rate, block.time_base, block.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


def remux(source, target, keep=lambda packet: True):
    """The same packets in the container that the target's name tells, those left out of course."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        streams = {one.index: made.add_stream_from_template(one) for one in given.streams}
        packets = [packet for packet in given.demux() if packet.dts is not None and keep(packet)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = streams[packet.stream.index]
            made.mux(packet)
    return target


def levels(frames):
    return [round(float(frame.mean()) / 5) for frame in frames]


EXPECTED = [51 if k == FLASH else k for k in range(NUM_FRAMES)]


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_frames_at_the_same_times(encoded, tmp_path, container):
    path = remux(encoded, tmp_path / f"clip.{container}")
    for rate, shown in ((10, 1), (20, 2), (25, 2.5), (Fraction(100, 3), Fraction(10, 3))):
        frames = levels(read_frames(path, frame_rate=rate))
        expected = [EXPECTED[int(k / shown)] for k in range(int(NUM_FRAMES * shown))]
        # The last frame of Flash has no duration: its end is a guess.
        assert frames[: len(expected) - 4] == expected[: len(expected) - 4]
        assert abs(len(frames) - len(expected)) <= 1
    piece = levels(read_frames(path, frame_rate=10, start=Fraction(21, 10), num_frames=5))
    assert piece == EXPECTED[21:26]
    if container != "flv":  # its header counts from a zero of its own
        assert abs(probe(path).duration - 3) < Fraction(1, 20)


@pytest.mark.parametrize("container", CONTAINERS)
def test_sound_lies_as_far_before_the_picture_in_every_container(encoded, tmp_path, container):
    path = remux(encoded, tmp_path / f"clip.{container}")
    sound = read_audio(path, sample_rate=SAMPLE_RATE)[0]
    loud = np.flatnonzero(np.abs(sound) > 0.2)
    assert abs(int(loud[0]) - CLICK) < SAMPLE_RATE // 1000 + 24
    clip = Clip.load(path)
    assert levels(clip.frames)[:NUM_FRAMES] == EXPECTED
    assert abs(float(np.abs(clip.waveform[0]).argmax()) / SAMPLE_RATE - 1.06) < 0.006


@pytest.mark.parametrize("container", ["mkv", "ts", "flv", "mp4"])
def test_a_file_cut_within_a_group_of_pictures_starts_at_its_first_whole_one(
    encoded, tmp_path, container
):
    """Packets of 0.35 s on: pictures 4 to 9 refer to the key frame at 0, which is not there."""

    def keep(packet):
        return packet.pts * packet.time_base >= Fraction(35, 100)

    path = remux(encoded, tmp_path / f"cut.{container}", keep)
    frames = levels(read_frames(path, frame_rate=10))
    assert frames == EXPECTED[10:]
    sound = read_audio(path, sample_rate=SAMPLE_RATE)[0]
    loud = np.flatnonzero(np.abs(sound) > 0.2)
    assert abs(int(loud[0]) - (CLICK - SAMPLE_RATE)) < SAMPLE_RATE // 1000 + 24
    assert abs(probe(path).audio_start + Fraction(65, 100)) < Fraction(1, 20)


def test_what_is_prepared_of_a_cut_file_repeats_no_picture(encoded, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    remux(encoded, folder / "cut.ts", lambda p: p.pts * p.time_base >= Fraction(35, 100))
    root = tmp_path / "out"
    prepare_dataset(folder, root, PrepareOptions(height=16, width=16))
    (record,) = load_manifest(root)
    assert (record.start_s, record.num_frames) == (0, 20)
    with (root / record.shard).open("rb") as file:
        file.seek(record.offset)
        (root / "clip.mkv").write_bytes(file.read(record.num_bytes))
    assert levels(read_frames(root / "clip.mkv", frame_rate=10)) == EXPECTED[10:]


@pytest.fixture(scope="module")
def rhythm(tmp_path_factory):
    """Eight seconds at ten pictures a second: nine flashes, each 40 ms after a burst of noise."""
    path = tmp_path_factory.mktemp("rhythm") / "source.mp4"
    rng = np.random.default_rng(3)
    flashes = rng.choice(np.arange(4, 76), 9, replace=False)
    sound = rng.normal(0, 0.001, (1, 80 * 4_800)).astype(np.float32)
    for flash in flashes:
        sound[0, flash * 4_800 - 1_920 :][:480] += rng.uniform(-0.9, 0.9, 480)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "12"})
        video.height, video.width, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for k in range(80):
            picture = grey(30)
            picture[16:48, 16:48] = 240 if k in flashes else 30
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FRAME_RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound, format="flt", layout="mono")
        block.sample_rate, block.time_base, block.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path


def test_sync_does_not_depend_on_the_container(rhythm, tmp_path):
    found = []
    for container in CONTAINERS:
        curves = curves_of(open_stream(remux(rhythm, tmp_path / f"clip.{container}"), 60))
        found.append(sync_of_curves(curves.motion, curves.sound, curves.frame_rate))
    scores, offsets = [one.score for one in found], [one.offset_s for one in found]
    assert min(scores) > 5
    assert max(scores) - min(scores) < 0.02
    assert max(offsets) - min(offsets) < 0.002
    assert abs(np.mean(offsets) + 0.04) < 0.05  # early, to within half a picture


def test_sound_long_before_the_picture_is_left_out_and_told(hostile_folder, caplog):
    clip = Clip.load(hostile_folder["video_starts_late.mkv"])
    assert clip.num_frames == 20
    assert "left out 0.3" in caplog.text
