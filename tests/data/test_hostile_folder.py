"""A folder of broken, odd and lying files is prepared to the end."""

import csv
import shutil
from dataclasses import replace

import pytest

from soundreel.data.dataset import PreparedDataset
from soundreel.data.manifest import DataError, load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.types import ClipSpec

OPTIONS = PrepareOptions(height=16, width=16)

REASONS = {
    "zero_byte.mp4": "cannot be read as media",
    "text_named_as_video.mp4": "cannot be read as media",
    "truncated_before_index.mp4": "cannot be read as media",
    "no_audio.mp4": "has no audio track",
    "no_video.m4a": "has no video track",
    "three_hour_empty.wav": "has no video track",
    "three_hour_jump.mkv": "has no audio track",
    "one_frame.mp4": "is 0.1 s, below min_duration_s",
    "three_hour_silent_header.mkv": "below min_duration_s",
    "audio_ends_early.mp4": "has sound for",
    "audio_starts_late.mp4": "below min_duration_s",
}
USABLE = {
    "odd_size.mkv",
    "rotated.mp4",
    "surround.mkv",
    "low_sample_rate.mp4",
    "high_sample_rate.mp4",
    "variable_rate.mp4",
    "video_starts_late.mkv",
}


@pytest.fixture
def folder(hostile_media, hostile_folder, tmp_path):
    """All hostile files and three good ones."""
    for path in hostile_folder.values():
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "in")
    for number in range(3):
        hostile_media.good(tmp_path / "in" / f"good{number}.mp4")
    return tmp_path / "in"


def _skipped(root):
    with (root / "skipped.csv").open() as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def test_every_hostile_file_is_used_or_listed_with_its_reason(folder, tmp_path):
    root = tmp_path / "out"
    prepare_dataset(folder, root, OPTIONS)
    used = {record.source for record in load_manifest(root)}
    reasons = _skipped(root)
    assert used | reasons.keys() == {path.name for path in folder.iterdir()}
    assert {"good0.mp4", "good1.mp4", "good2.mp4"} <= used
    assert used >= USABLE
    for name, reason in REASONS.items():
        assert name not in used
        assert reason in reasons[name]
    assert not any("unforeseen" in reason for reason in reasons.values())


def test_what_was_accepted_can_be_trained_on(folder, tmp_path):
    root = tmp_path / "out"
    prepare_dataset(folder, root, replace(OPTIONS, min_duration_s=0.5))
    spec = ClipSpec(num_frames=5, height=16, width=16)
    dataset = PreparedDataset(root, spec=spec)
    for record in dataset.records:
        seconds = record.num_samples / 16_000
        assert seconds == record.num_frames / 10
    for index in range(0, len(dataset), 5):
        av = dataset[index].av
        assert av["video"].shape == spec.video_shape
        assert float(av["audio"].abs().max()) <= 1
        assert float((av["audio"] == 0).float().mean()) < 0.2, dataset[index].key


def test_a_folder_of_nothing_usable_is_an_error(hostile_folder, tmp_path):
    (tmp_path / "in").mkdir()
    for name in REASONS:
        shutil.copy(hostile_folder[name], tmp_path / "in")
    with pytest.raises(DataError, match=f"nothing usable .* all {len(REASONS)} sources"):
        prepare_dataset(tmp_path / "in", tmp_path / "out", OPTIONS)
    assert _skipped(tmp_path / "out").keys() == REASONS.keys()
    assert not (tmp_path / "out" / "dataset.json").exists()
