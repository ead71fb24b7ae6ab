"""What prepare makes of folders and lists of videos."""

import csv
import hashlib
import io
import json
import re
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from soundreel.data.captions import read_captions
from soundreel.data.dataset import PreparedDataset
from soundreel.data.manifest import ClipRecord, DataError, DatasetInfo, load_manifest
from soundreel.data.options import RECIPES, PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.decode import read_audio, read_frames
from soundreel.media.encode import write_mkv
from soundreel.systems.mm_ldm.recipes import RECIPES as MM_LDM
from soundreel.types import ClipSpec

DOCS = Path(__file__).resolve().parents[2] / "docs"
SMALL = PrepareOptions(height=8, width=8)


def _members(root: Path) -> dict[str, bytes]:
    members = {}
    for shard in sorted((root / "shards").iterdir()):
        with tarfile.open(shard) as tar:
            for member in tar:
                assert member.name not in members
                members[member.name] = tar.extractfile(member).read()
    return members


def _skipped(root: Path) -> dict[str, str]:
    with (root / "skipped.csv").open() as file:
        return {row["path"]: row["reason"] for row in csv.DictReader(file)}


def _frames(content: bytes, rate: int = 10) -> np.ndarray:
    return np.stack(list(read_frames(io.BytesIO(content), frame_rate=Fraction(rate))))


def test_a_folder_becomes_shards_a_manifest_and_a_description(tmp_path, make_video):
    for number in range(3):
        make_video(tmp_path / "in" / f"take {number}.v2.mkv", first_level=40 * number)
    root = tmp_path / "out"
    report = prepare_dataset(tmp_path / "in", root, SMALL)
    assert report.num_converted == 3
    info = DatasetInfo.load(root)
    assert (info.height, info.width, info.frame_rate, info.sample_rate) == (8, 8, 10, 16_000)
    assert (info.counts["clips"], info.counts["seconds"]) == (3, 6.0)
    assert info.options["crop"] == "center"
    members = _members(root)
    for number, record in enumerate(load_manifest(root)):
        assert (record.source, record.split) == (f"take {number}.v2.mkv", "train")
        assert (record.num_frames, record.num_samples, record.label) == (20, 32_000, -1)
        content = members[f"{record.key}.mkv"]
        with (root / record.shard).open("rb") as shard:
            shard.seek(record.offset)
            assert shard.read(record.num_bytes) == content
        assert hashlib.sha256(content).hexdigest() == record.sha256
        assert json.loads(members[f"{record.key}.json"])["source"] == record.source
        levels = _frames(content)[:, 4, 6, 0]
        assert np.array_equal(levels, 40 * number + np.arange(20))
        waveform = read_audio(io.BytesIO(content), sample_rate=16_000)
        expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
        assert np.abs(waveform[0] - expected).max() < 1e-6


def test_members_group_by_base_name_as_webdataset_expects(tmp_path, make_video):
    for name in ("a.b.mkv", "c/a.b.mkv"):
        make_video(tmp_path / "in" / name)
    prepare_dataset(tmp_path / "in", tmp_path / "out", SMALL)
    groups: list[tuple[str, set[str]]] = []
    for name in _members(tmp_path / "out"):
        base, _, extension = name.partition(".")  # WebDataset: the key ends at the first point
        if not groups or groups[-1][0] != base:
            groups.append((base, set()))
        groups[-1][1].add(extension)
    assert len(groups) == 2 == len({base for base, _ in groups})
    assert all(extensions == {"json", "mkv"} for _, extensions in groups)


def test_shards_are_closed_at_their_size(tmp_path, make_video):
    for number in range(4):
        make_video(tmp_path / "in" / f"{number}.mkv", sample_rate=48_000)
    options = replace(SMALL, shard_size_mb=1, sample_rate=192_000)  # 1.5 MB of sound a clip
    prepare_dataset(tmp_path / "in", tmp_path / "out", options)
    records = load_manifest(tmp_path / "out")
    assert [record.shard[-10:] for record in records] == [f"{n:06d}.tar" for n in range(4)]
    assert len(_members(tmp_path / "out")) == 8


def test_long_videos_become_consecutive_clips_that_lose_nothing(tmp_path, make_video):
    make_video(tmp_path / "in" / "long.mkv", duration_s=7.3)
    options = replace(SMALL, clip_duration_s=2.0, min_duration_s=1.0)
    prepare_dataset(tmp_path / "in", tmp_path / "out", options)
    records = load_manifest(tmp_path / "out")
    assert [record.start_s for record in records] == [0.0, 2.0, 4.0, 6.0]
    assert [record.num_frames for record in records] == [20, 20, 20, 13]
    members = _members(tmp_path / "out")
    contents = [members[f"{record.key}.mkv"] for record in records]
    levels = np.concatenate([_frames(content)[:, 4, 6, 0] for content in contents])
    assert np.array_equal(levels, np.arange(73))
    sound = [read_audio(io.BytesIO(content), sample_rate=16_000)[0] for content in contents]
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(7.3 * 16_000) / 16_000)
    assert np.abs(np.concatenate(sound) - expected).max() < 1e-6


def test_a_short_last_piece_is_listed_as_skipped(tmp_path, make_video):
    make_video(tmp_path / "in" / "long.mkv", duration_s=4.5)
    prepare_dataset(tmp_path / "in", tmp_path / "out", replace(SMALL, clip_duration_s=2.0))
    with (tmp_path / "out" / "skipped.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], float(row["start_s"]), float(row["end_s"])) == ("long.mkv", 4.0, 4.5)
    assert "below min_duration_s 1.6" in row["reason"]


def test_clips_end_where_the_sound_ends_and_are_never_padded(tmp_path, make_video):
    make_video(tmp_path / "in" / "early.mkv", duration_s=3.0, sound_s=2.05)
    make_video(tmp_path / "in" / "gone.mkv", duration_s=3.0, sound_s=1.0)
    prepare_dataset(tmp_path / "in", tmp_path / "out", SMALL)
    (record,) = load_manifest(tmp_path / "out")
    assert (record.source, record.num_frames, record.num_samples) == ("early.mkv", 20, 32_000)
    assert "has sound for 1 s" in _skipped(tmp_path / "out")["gone.mkv"]


def test_filters_leave_out_what_is_slow_small_or_silent(tmp_path, make_video):
    make_video(tmp_path / "in" / "good.mkv", frame_rate=25)
    make_video(tmp_path / "in" / "slow.mkv", frame_rate=10)
    make_video(tmp_path / "in" / "small.mkv", frame_rate=25, size=(16, 12))
    make_video(tmp_path / "in" / "silent.mkv", frame_rate=25, loudness=0.0)
    make_video(tmp_path / "in" / "quiet.mkv", frame_rate=25, loudness=1e-3)
    options = replace(SMALL, min_frame_rate=24.0, min_size=16, silence_db=-60.0)
    prepare_dataset(tmp_path / "in", tmp_path / "out", options)
    assert [record.source for record in load_manifest(tmp_path / "out")] == ["good.mkv"]
    reasons = _skipped(tmp_path / "out")
    assert "frame rate 10.000 is below min_frame_rate 24" in reasons["slow.mkv"]
    assert "picture 12x16 is below min_size 16" in reasons["small.mkv"]
    assert "silent: -200 dB" in reasons["silent.mkv"]
    assert "silent: -63 dB" in reasons["quiet.mkv"]


@pytest.mark.parametrize(
    ("page", "kinds"), [("own_videos", {"mute", "quiet", "short"}), ("data", {"short", "early"})]
)
def test_the_pages_name_the_reasons_that_are_written(tmp_path, make_video, page, kinds):
    """Compared but for the numbers; `...` stands for the rest."""
    make_video(tmp_path / "in" / "good.mkv")
    make_video(tmp_path / "in" / "quiet.mkv", loudness=1e-5)
    make_video(tmp_path / "in" / "short.mkv", duration_s=1)
    make_video(tmp_path / "in" / "early.mkv", sound_s=1)
    frames = np.zeros((20, 16, 16, 3), np.uint8)
    write_mkv(tmp_path / "in" / "mute.mkv", list(frames), None, Fraction(10), 16_000)
    prepare_dataset(tmp_path / "in", tmp_path / "out", SMALL)
    reasons = {Path(name).stem: reason for name, reason in _skipped(tmp_path / "out").items()}
    assert reasons.keys() == {"mute", "quiet", "short", "early"}
    rows = re.findall(r"^\| [^|`]*`([^`]+)`", (DOCS / f"{page}.md").read_text(), re.MULTILINE)
    named = [re.sub(r"-?[\d.]+", "#", row).removesuffix("#") for row in rows]
    written = {kind: re.sub(r"-?[\d.]+", "#", reason) for kind, reason in reasons.items()}
    assert kinds <= {kind for kind, reason in written.items() if reason.startswith(tuple(named))}


def test_crops_show_the_part_that_was_asked_for(tmp_path, make_video):
    make_video(tmp_path / "in" / "wide.mkv", size=(16, 32))
    shown = {}
    for crop, box in (("center", (0, 0, 0, 0)), ("letterbox", (0, 0, 0, 0)), ("box", (0, 0, 8, 8))):
        root = tmp_path / crop
        prepare_dataset(tmp_path / "in", root, replace(SMALL, crop=crop, box=box))
        shown[crop] = _frames(_members(root)[f"{load_manifest(root)[0].key}.mkv"])[0, :, :, 0]
    for crop in ("center", "letterbox"):  # both keep the edge between bright and dark in the middle
        assert (shown[crop].shape, shown[crop][4, 1] > 90, shown[crop][4, 6] < 10) == ((8, 8), 1, 1)
    assert (shown["center"][0, 1] > 90, shown["letterbox"][0].max()) == (True, 0)
    assert (shown["box"].min(), shown["box"].max()) == (100, 100)


def test_a_box_outside_the_picture_is_a_reason_to_skip(tmp_path, make_video):
    make_video(tmp_path / "in" / "small.mkv")
    make_video(tmp_path / "in" / "large.mkv", size=(32, 32))
    options = replace(SMALL, crop="box", box=(0, 0, 20, 20))
    prepare_dataset(tmp_path / "in", tmp_path / "out", options)
    assert "box" in _skipped(tmp_path / "out")["small.mkv"]


def test_rates_are_converted_by_time(tmp_path, make_video):
    make_video(tmp_path / "in" / "fast.mkv", frame_rate=25, sample_rate=44_100)
    prepare_dataset(tmp_path / "in", tmp_path / "out", SMALL)
    (record,) = load_manifest(tmp_path / "out")
    content = _members(tmp_path / "out")[f"{record.key}.mkv"]
    levels = _frames(content)[:, 4, 6, 0]
    assert np.array_equal(levels, np.arange(20) * 25 // 10)
    waveform = read_audio(io.BytesIO(content), sample_rate=16_000)[0]
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)
    assert np.abs(waveform - expected)[200:-200].max() < 1e-4


def test_a_list_gives_labels_pieces_and_common_sources(tmp_path, make_video):
    make_video(tmp_path / "in" / "one.mkv", duration_s=6.0)
    make_video(tmp_path / "in" / "two.mkv")
    (tmp_path / "in" / "list.csv").write_text(
        "path,label,start_s,end_s,source\n"
        "one.mkv,rain,1.5,3.5,scene\none.mkv,wind,4,,scene\n"
        "two.mkv,rain,,,\nthree.mkv,rain,,,\ntwo.mkv,wind,0,0.5,\none.mkv,,0,2,\n"
    )
    options = replace(SMALL, labels="list")
    info = prepare_dataset(tmp_path / "in" / "list.csv", tmp_path / "out", options).info
    assert info.classes == ("rain", "wind")
    found = {r.source: (r.label, r.start_s, r.num_frames) for r in load_manifest(tmp_path / "out")}
    assert found == {
        "one.mkv@1.5-3.5": (0, 1.5, 20),
        "one.mkv@4-": (1, 4.0, 20),
        "two.mkv": (0, 0.0, 20),
    }
    reasons = _skipped(tmp_path / "out")
    assert "no such file" in reasons["three.mkv"]
    assert "below min_duration_s" in reasons["two.mkv@0-0.5"]
    assert "no label" in reasons["one.mkv@0-2"]


def test_labels_that_are_left_unused_are_mentioned(tmp_path, make_video, caplog):
    make_video(tmp_path / "in" / "one.mkv")
    (tmp_path / "in" / "list.csv").write_text("path,label\none.mkv,rain\n")
    info = prepare_dataset(tmp_path / "in" / "list.csv", tmp_path / "out", SMALL).info
    assert info.classes == ()
    assert "1 labels of the list are not used" in caplog.text


def test_the_landscape_recipe_takes_classes_from_folders(tmp_path, make_video):
    for name in ("train/thunder/a.mkv", "train/raining/b.mkv", "train/raining/c.mkv", "stray.mkv"):
        make_video(tmp_path / "in" / name)
    options = replace(RECIPES["landscape"].options, height=8, width=8)
    info = prepare_dataset(tmp_path / "in", tmp_path / "out", options).info
    assert info.classes == ("raining", "thunder")
    assert [record.label for record in load_manifest(tmp_path / "out")] == [0, 0, 1]
    assert "no class folder" in _skipped(tmp_path / "out")["stray.mkv"]


def test_the_recipe_for_mm_ldm_keeps_the_whole_picture_of_landscape(tmp_path, make_video):
    make_video(tmp_path / "src" / "fire" / "x.mkv", size=(16, 32), first_level=100)
    recipe = MM_LDM["landscape-mm-ldm"].options
    assert (recipe.height, recipe.width, recipe.sample_rate) == (256, 256, 44_100)
    assert MM_LDM["audioset-mm-ldm"].options.clip_num_frames == 40
    prepare_dataset(tmp_path / "src", tmp_path / "out", replace(recipe, height=8, width=8))
    dataset = PreparedDataset(
        tmp_path / "out", spec=ClipSpec(num_frames=2, height=8, width=8, sample_rate=44_100)
    )
    assert dataset.info.classes == ("fire",)
    video = dataset[0].av["video"]
    assert float(video[:, :, :2].max()) == float(video[:, :, 6:].max()) == -1, "bars"
    assert float(video[:, :, 2:6].min()) > -0.5
    assert float((video[:, :, 3, 0] - video[:, :, 3, -1]).min()) > 0.5, "both sides are there"


def test_the_aist_recipe_keeps_all_cameras_on_a_dance_in_one_split(tmp_path, make_video):
    names = [
        f"gBR_sBM_c{camera:02d}_d04_mBR{music}_ch01.mkv" for camera in (1, 9) for music in range(6)
    ]
    for number, name in enumerate(names):
        make_video(tmp_path / "in" / name, first_level=number)
    options = replace(RECIPES["aist"].options, height=8, width=8, test=2.0)
    info = prepare_dataset(tmp_path / "in", tmp_path / "out", options).info
    assert info.classes == tuple(f"BR{music}" for music in range(6))
    splits = {record.source: record.split for record in load_manifest(tmp_path / "out")}
    assert sum(split == "test" for split in splits.values()) == 4
    assert all(splits[name] == splits[name.replace("_c01_", "_c09_")] for name in names)


def test_the_audioset_recipe_reads_its_lists_and_takes_words_as_captions(tmp_path, make_video):
    whole, cut, slow = "-0RWZT-miFs", "abc_DEF-123", "zzzzzzzzzzz"
    make_video(tmp_path / "in" / f"{whole}.mkv", duration_s=4.0, frame_rate=25)
    make_video(tmp_path / "in" / "media" / f"{cut}_30000_32000.mkv", duration_s=2.0, frame_rate=25)
    make_video(tmp_path / "in" / "media" / f"{cut}_70.mkv", duration_s=2.0)  # not listed
    make_video(tmp_path / "in" / f"{slow}.mkv", duration_s=4.0, frame_rate=20)
    (tmp_path / "in" / "class_labels_indices.csv").write_text(
        'index,mid,display_name\n0,/m/03fwl,"Goat"\n1,/m/04rlf,"Music"\n2,/m/0ch8v,"Rain, heavy"\n'
    )
    (tmp_path / "in" / "balanced.csv").write_text(
        "# Segments csv created Sun Mar  5 10:54:31 2017\n"
        "# YTID, start_seconds, end_seconds, positive_labels\n"
        f'{whole}, 1.000, 4.000, "/m/03fwl,/m/04rlf"\n{cut}, 30.000, 32.000, "/m/0ch8v"\n'
        f'{slow}, 0.000, 4.000, "/m/0ch8v"\nmissing-one, 0.000, 4.000, "/m/0ch8v"\n'
    )
    options = replace(RECIPES["audioset"].options, height=8, width=8, best=2)
    info = prepare_dataset(tmp_path / "in" / "balanced.csv", tmp_path / "out", options).info
    assert info.classes == ()
    found = [(r.group, r.start_s, r.num_frames) for r in load_manifest(tmp_path / "out")]
    assert sorted(found) == [(whole, 1.0, 30), (cut, 0.0, 20)]
    captions = {
        r.group: read_captions(tmp_path / "out" / "captions.csv", tmp_path / "out")[r.key]
        for r in load_manifest(tmp_path / "out")
    }
    assert captions == {whole: "Goat, Music", cut: "Rain, heavy"}
    rows = list(csv.reader((tmp_path / "out" / "chosen.csv").read_text().splitlines()))
    assert rows[0] == ["source", "frame_rate", "width", "height"]
    assert [row[1] for row in rows[1:]] == ["25", "25"], "the slow and the missing one are not best"
    prepare_dataset(
        tmp_path / "in" / "balanced.csv", tmp_path / "all", replace(options, best=0, labels="list")
    )
    assert DatasetInfo.load(tmp_path / "all").classes == ("Goat", "Rain, heavy")
    assert "no such file" in _skipped(tmp_path / "all")["missing-one.mp4@0.000-4.000"]


def test_a_label_without_words_is_refused(tmp_path):
    (tmp_path / "list.csv").write_text("# YTID, start_seconds, end_seconds\nx, 0, 4, /m/1\n")
    with pytest.raises(DataError, match=r"class_labels_indices.csv is missing"):
        prepare_dataset(tmp_path / "list.csv", tmp_path / "out", SMALL)
    (tmp_path / "class_labels_indices.csv").write_text("index,mid,display_name\n0,/m/2,Rain\n")
    with pytest.raises(DataError, match=r"list.csv, line 2: .* no label '/m/1'"):
        prepare_dataset(tmp_path / "list.csv", tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\na.mkv\n", "must name the column path"),
        ("path\na.mkv\na.mkv\n", "listed twice"),
        ("path,start_s\na.mkv,-1\n", "seconds from 0 on"),
        ("path,label\n,rain\n", "no path"),
        ("path\n", "holds no files"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        prepare_dataset(tmp_path / "list.csv", tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_absent_or_empty_sources_and_foreign_destinations_are_refused(tmp_path, make_video):
    with pytest.raises(DataError, match="does not exist"):
        prepare_dataset(tmp_path / "no", tmp_path / "out", SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no files"):
        prepare_dataset(tmp_path / "empty", tmp_path / "out", SMALL)
    make_video(tmp_path / "in" / "a.mkv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="holds other files"):
        prepare_dataset(tmp_path / "in", tmp_path / "mine", SMALL, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_nothing_usable_is_an_error_that_says_why(tmp_path, make_video):
    make_video(tmp_path / "in" / "silent.mkv", loudness=0.0)
    for _ in range(2):
        with pytest.raises(DataError, match=r"nothing usable .*silent\.mkv: silent"):
            prepare_dataset(tmp_path / "in", tmp_path / "out", SMALL)
    assert "silent" in _skipped(tmp_path / "out")["silent.mkv"]
    with pytest.raises(DataError, match="not a prepared data set"):
        PreparedDataset(tmp_path / "out", spec=ClipSpec(height=8, width=8))


def test_options_out_of_range_are_refused_with_the_fix():
    for wrong, message in (
        ({"frame_rate": "fast"}, "a fraction such as 30000/1001"),
        ({"height": 0}, "height must be positive"),
        ({"crop": "box"}, "LEFT TOP WIDTH HEIGHT"),
        ({"labels": "pattern"}, "needs label_pattern"),
        ({"test": 1.5}, "whole number"),
        ({"clip_duration_s": 1.0}, "min_duration_s"),
        ({"num_channels": 6}, "1 or 2"),
    ):
        with pytest.raises(ValueError, match=message):
            PrepareOptions(**wrong)


def test_records_round_trip_through_the_manifest(tmp_path, make_video):
    make_video(tmp_path / "in" / "a.mkv")
    prepare_dataset(tmp_path / "in", tmp_path / "out", SMALL)
    (record,) = load_manifest(tmp_path / "out")
    assert isinstance(record, ClipRecord)
    (tmp_path / "out" / "manifest.jsonl").write_text('{"key": 1}\n')
    missing = r"line 1: missing key split, label, .*key: expected a text, got 1"
    with pytest.raises(DataError, match=missing):
        load_manifest(tmp_path / "out")


def test_texts_beside_the_videos_do_not_take_the_place_of_clips_to_hold_out(tmp_path, make_video):
    """As `render` writes them: every video with a description of its own name."""
    for number in range(4):
        make_video(tmp_path / "in" / "kind" / f"{number}.mkv", first_level=40 * number)
        (tmp_path / "in" / "kind" / f"{number}.json").write_text("{}")
    prepare_dataset(tmp_path / "in", tmp_path / "out", replace(SMALL, test=3.0))
    records = load_manifest(tmp_path / "out")
    assert sorted(record.split for record in records) == ["test", "test", "test", "train"]
    assert set(_skipped(tmp_path / "out").values()) == {"is no video by its name"}


@pytest.mark.parametrize(
    "rows", ['"' + "x" * 200_000 + '"', "a\0b.mkv", '"never closed', "a.mkv,b,c,d"]
)
def test_a_list_that_is_no_list_is_one_line(tmp_path, rows):
    path = tmp_path / "list.csv"
    path.write_text(f"path,label\n{rows}\n")
    with pytest.raises(DataError, match="list"):
        prepare_dataset(path, tmp_path / "out", SMALL)
