"""Windows of prepared clips: nothing mirrored unasked, nothing padded, everything on one clock."""

import pickle
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from soundreel.data.dataset import PreparedDataset
from soundreel.data.loader import sample_generator
from soundreel.data.manifest import DataError, load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.decode import read_frames
from soundreel.types import ClipSpec

SPEC = ClipSpec(num_frames=16, height=8, width=8)


@pytest.fixture
def root(tmp_path, make_video):
    """Two clips of 20 and 17 frames from sources of 25 and 30 frames per second."""
    make_video(tmp_path / "in" / "b" / "one.mkv", duration_s=2.0, frame_rate=25)
    make_video(tmp_path / "in" / "a" / "two.mkv", duration_s=1.7, frame_rate=30, first_level=100)
    options = PrepareOptions(height=8, width=8, labels="folder")
    prepare_dataset(tmp_path / "in", tmp_path / "out", options)
    return tmp_path / "out"


def _level(sample) -> np.ndarray:
    """Grey level of each frame, read where the frame is dark."""
    return ((sample.av.video[:, 0, 4, 6] + 1) * 127.5).round().int().numpy()


def test_every_start_frame_is_a_window_with_its_own_frames_and_sound(root):
    dataset = PreparedDataset(root, spec=SPEC)
    assert len(dataset) == (17 - 15) + (20 - 15)
    clock = np.arange(32_000) / 16_000
    sine = 0.5 * np.sin(2 * np.pi * 440 * clock)
    for index, (start, first, rate) in enumerate(
        [(s, 100, 30) for s in range(2)] + [(s, 0, 25) for s in range(5)]
    ):
        sample = dataset[index]
        assert (sample.start_frame, sample.label) == (start, 0 if first else 1)
        assert sample.av.video.shape == SPEC.video_shape
        assert sample.av.audio.shape == SPEC.audio_shape
        assert np.array_equal(_level(sample), first + (start + np.arange(16)) * rate // 10)
        expected = sine[1600 * start : 1600 * start + 25_600]
        assert np.abs(sample.av.audio[0].numpy() - expected).max() < 1e-5


def test_windows_of_fast_sources_have_sound_to_their_end(root):
    """The original loader ends the sound of such sources 0.07 to 0.1 s early and adds zeros."""
    for sample in PreparedDataset(root, spec=SPEC):
        last = sample.av.audio[0, -1600:]
        assert float((last == 0).float().mean()) < 0.01
        assert float(last.square().mean().sqrt()) == pytest.approx(0.5 / 2**0.5, rel=0.02)


def test_frames_are_mirrored_only_when_drawn_and_then_all_alike(root):
    """The original loader mirrors every training clip."""
    plain = PreparedDataset(root, spec=SPEC, cache=True)
    always = PreparedDataset(root, spec=SPEC, cache=True, flip_probability=1.0)
    half = PreparedDataset(root, spec=SPEC, cache=True, flip_probability=0.5)
    mirrored = 0
    for number in range(60):
        generator = sample_generator(0, number)
        left = plain.draw(3, generator).av.video
        assert torch.equal(left, plain[3].av.video)
        assert float((left[:, :, :, 0] - left[:, :, :, -1]).min()) > 0.7
        drawn = half.draw(3, sample_generator(0, number)).av
        if not torch.equal(drawn.video, left):
            mirrored += 1
            assert torch.equal(drawn.video, left.flip(-1))
        assert torch.equal(drawn.audio, plain[3].av.audio)
    assert 18 <= mirrored <= 42
    assert torch.equal(always.draw(3, sample_generator(1)).av.video, plain[3].av.video.flip(-1))
    assert torch.equal(always[3].av.video, plain[3].av.video)


def test_strided_windows_are_every_nth_of_all(root):
    every, third = (PreparedDataset(root, spec=SPEC, stride=stride) for stride in (1, 3))
    starts = [(sample.key, sample.start_frame) for sample in third]
    assert [start for _, start in starts] == [0, 0, 3]
    by_start = {(sample.key, sample.start_frame): sample for sample in every}
    for sample in third:
        twin = by_start[sample.key, sample.start_frame]
        assert torch.equal(sample.av.video, twin.av.video)


def test_random_windows_cover_all_starts_of_a_clip(root):
    dataset = PreparedDataset(root, spec=SPEC, stride="random", cache=True)
    assert len(dataset) == 2
    starts = [dataset.draw(1, sample_generator(0, n)).start_frame for n in range(80)]
    assert set(starts) == {0, 1, 2, 3, 4}
    assert min(starts.count(start) for start in range(5)) >= 6


def test_cached_and_uncached_windows_are_equal(root):
    plain = PreparedDataset(root, spec=SPEC)
    cached = PreparedDataset(root, spec=SPEC, cache=True)
    little = PreparedDataset(root, spec=SPEC, cache=True, cache_bytes=200_000)  # holds one clip
    for index in range(len(plain)):
        expected = plain[index].av
        for other in (cached, cached, little):
            assert torch.equal(other[index].av.video, expected.video)
            assert torch.equal(other[index].av.audio, expected.audio)


def test_sound_alone_is_that_of_the_windows_and_decodes_no_picture(root, monkeypatch):
    windows = list(PreparedDataset(root, spec=SPEC))
    monkeypatch.setattr("soundreel.media.decode.read_frames", None)
    sounds = PreparedDataset(root, spec=SPEC, sound_only=True, cache=True)
    assert len(sounds) == len(windows)
    for sound, window in zip(sounds, windows, strict=True):
        assert sound.av.video is None
        assert torch.equal(sound.av["audio"], window.av["audio"])
        assert sound.key == window.key


@pytest.mark.parametrize("cache_bytes", [0, 1, 200_000])
def test_a_clip_that_the_cache_cannot_hold_is_decoded_no_further_than_its_window(
    root, monkeypatch, cache_bytes
):
    """200,000 bytes hold one of the two clips."""
    dataset = PreparedDataset(root, spec=SPEC, cache=True, cache_bytes=cache_bytes)
    decoded = []

    def count(*args, num_frames, **options):
        decoded.append(num_frames)
        return read_frames(*args, num_frames=num_frames, **options)

    monkeypatch.setattr("soundreel.media.decode.read_frames", count)
    for _ in range(2):
        for index in range(len(dataset)):
            dataset[index]
    whole = [] if cache_bytes < 200_000 else [dataset.records[0].num_frames]
    assert sorted(decoded, reverse=True)[: len(whole)] == whole
    assert set(decoded[len(whole) :]) == {SPEC.num_frames}
    windows = [dataset._num_starts(r.num_frames) for r in dataset.records[len(whole) :]]
    assert len(decoded) - len(whole) == 2 * sum(windows)


def test_a_cached_window_can_be_changed_without_changing_the_next(root):
    dataset = PreparedDataset(root, spec=SPEC, cache=True)
    first = dataset[0].av
    expected = first.audio.clone()
    first.audio.zero_()
    first.video.zero_()
    assert torch.equal(dataset[0].av.audio, expected)
    assert float(dataset[0].av.video.abs().max()) > 0


def test_cached_clips_are_not_read_from_disk_again(root):
    dataset = PreparedDataset(root, spec=SPEC, cache=True)
    expected = [dataset[index].av.video for index in range(len(dataset))]
    for shard in (root / "shards").iterdir():
        shard.write_bytes(b"")
    assert all(torch.equal(dataset[index].av.video, video) for index, video in enumerate(expected))


def test_a_dataset_travels_to_worker_processes(root):
    dataset = PreparedDataset(root, spec=SPEC)
    expected = dataset[2]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[2].av.video, expected.av.video)


def test_windows_of_odd_rates_have_the_samples_of_their_time(tmp_path, make_video):
    make_video(tmp_path / "in" / "a.mkv", duration_s=3.0, frame_rate=25, sample_rate=22_050)
    options = PrepareOptions(height=8, width=8, frame_rate="30000/1001", sample_rate=22_050)
    prepare_dataset(tmp_path / "in", tmp_path / "out", options)
    spec = replace(SPEC, frame_rate=Fraction(30_000, 1001), sample_rate=22_050)
    dataset = PreparedDataset(tmp_path / "out", spec=spec)
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(66_150) / 22_050)
    assert len(dataset) == load_manifest(tmp_path / "out")[0].num_frames - 15
    for index in (0, 1, 37, len(dataset) - 1):
        sample = dataset[index]
        first = spec.frame_to_sample(index)
        expected = sine[first : first + spec.num_samples]
        assert np.abs(sample.av.audio[0].numpy() - expected).max() < 1e-6
        times = (index + np.arange(16)) * 1001 / 30_000
        assert np.array_equal(_level(sample), np.floor(times * 25 + 1e-9))


def test_stereo_is_kept_when_asked_for(tmp_path, make_video):
    make_video(tmp_path / "in" / "a.mkv")
    prepare_dataset(
        tmp_path / "in", tmp_path / "out", PrepareOptions(height=8, width=8, num_channels=2)
    )
    sample = PreparedDataset(tmp_path / "out", spec=replace(SPEC, num_channels=2))[0]
    assert sample.av.audio.shape == (2, 25_600)
    assert torch.equal(sample.av.audio[0], sample.av.audio[1])


def test_misfits_are_refused_with_what_the_data_set_has(root):
    with pytest.raises(ValueError, match=r"height 64 \(the data set has 8\), width 64"):
        PreparedDataset(root, spec=ClipSpec())
    with pytest.raises(DataError, match=r"no clips in split 'test'; it has \['train'\]"):
        PreparedDataset(root, spec=SPEC, split="test")
    with pytest.raises(DataError, match="the longest has 20"):
        PreparedDataset(root, spec=replace(SPEC, num_frames=21))
    with pytest.raises(ValueError, match="flip_probability"):
        PreparedDataset(root, spec=SPEC, flip_probability=2.0)
    with pytest.raises(ValueError, match="stride must be positive"):
        PreparedDataset(root, spec=SPEC, stride=0)
    with pytest.raises(IndexError):
        PreparedDataset(root, spec=SPEC)[7]


def test_a_damaged_shard_is_named(root):
    dataset = PreparedDataset(root, spec=SPEC)
    shard = root / dataset.records[0].shard
    content = bytearray(shard.read_bytes())
    start = dataset.records[0].offset
    content[start : start + 4000] = bytes(4000)
    shard.write_bytes(content)
    with pytest.raises(DataError, match=r"clip two-.* is damaged"):
        dataset[0]
    shard.write_bytes(content[: start + 100])
    with pytest.raises(DataError, match="ends before clip"):
        PreparedDataset(root, spec=SPEC)[0]
