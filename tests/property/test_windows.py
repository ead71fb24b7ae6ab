"""Windows over clips of any length, rate and stride."""

import tempfile
from fractions import Fraction
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from soundreel.data.dataset import PreparedDataset
from soundreel.data.manifest import ClipRecord, DatasetInfo, save_manifest
from soundreel.types import ClipSpec, frame_to_sample

RATES = st.builds(Fraction, st.integers(1, 60_000), st.sampled_from([1, 7, 1000, 1001]))
SAMPLE_RATES = st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])


@given(RATES, SAMPLE_RATES, st.integers(1, 64), st.integers(0, 5000), st.integers(0, 500))
def test_a_window_never_needs_samples_beyond_its_clip(rate, sample_rate, length, start, rest):
    spec = ClipSpec(num_frames=length, frame_rate=rate, sample_rate=min(sample_rate, 96_000))
    if spec.sample_rate < rate:  # less than a sample a frame: no clip has such rates
        return
    clip_samples = frame_to_sample(start + length + rest, rate, sample_rate)
    first = spec.frame_to_sample(start)
    assert first + spec.num_samples <= clip_samples
    assert 0 <= spec.frame_to_sample(start + length) - (first + spec.num_samples) <= 1


@given(RATES, SAMPLE_RATES, st.integers(0, 10**6), st.integers(1, 100))
def test_adjacent_stretches_share_no_sample_and_leave_none_out(rate, sample_rate, start, length):
    cuts = [frame_to_sample(start + k * length, rate, sample_rate) for k in range(4)]
    assert cuts == sorted(cuts)
    for cut, frame in zip(cuts, range(start, start + 4 * length, length), strict=True):
        assert cut <= frame * sample_rate / rate < cut + 1


def _record(number: int, num_frames: int) -> ClipRecord:
    return ClipRecord(
        key=f"clip-{number}",
        split="train",
        label=-1,
        source=f"{number}.mp4",
        group=f"{number}.mp4",
        start_s=0.0,
        num_frames=num_frames,
        num_samples=num_frames * 1600,
        num_clipped=0,
        shard="shards/train-000000.tar",
        offset=0,
        num_bytes=1,
        sha256="",
    )


class _Recorder:
    """Stands for the decoded clips: returns which piece of which clip was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, tuple[int, int], tuple[int, int]]] = []

    def cut(self, clip, frames, samples):
        self.asked.append((clip, frames, samples))
        raise StopIteration


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 9),
)
def test_indices_enumerate_exactly_the_windows_of_every_clip(lengths, num_frames, stride):
    expected = [
        (number, (start, start + num_frames), (1600 * start, 1600 * (start + num_frames)))
        for number, length in enumerate(lengths)
        for start in range(0, length - num_frames + 1, stride)
    ]
    if not expected:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        info = DatasetInfo(
            height=8,
            width=8,
            frame_rate=Fraction(10),
            sample_rate=16_000,
            num_channels=1,
            classes=(),
            origin="",
        )
        save_manifest(root, [_record(n, length) for n, length in enumerate(lengths)])
        info.save(root)
        dataset = PreparedDataset(root, spec=info.spec(num_frames), stride=stride)
        recorder = dataset._clips = _Recorder()
        assert len(dataset) == len(expected)
        for index in range(len(dataset)):
            try:
                dataset[index]
            except StopIteration:
                continue
        numbers = [int(record.key.split("-")[1]) for record in dataset.records]
    assert [(numbers[c], f, s) for c, f, s in recorder.asked] == expected


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 500),
    st.integers(1, 500),
    RATES,
    st.lists(st.text(min_size=1, max_size=8), max_size=4, unique=True),
    st.dictionaries(st.text(max_size=5), st.integers(0, 10**9), max_size=3),
    st.text(max_size=20),
)
def test_descriptions_and_manifests_round_trip(height, width, rate, classes, counts, text):
    info = DatasetInfo(
        height=height,
        width=width,
        frame_rate=rate,
        sample_rate=16_000,
        num_channels=2,
        classes=tuple(classes),
        origin=text,
        counts=counts,
    )
    with tempfile.TemporaryDirectory() as folder:
        info.save(Path(folder))
        assert DatasetInfo.load(Path(folder)) == info
