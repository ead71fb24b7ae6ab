"""Sources that are copies of one another stay in one split."""

import shutil
from fractions import Fraction

import numpy as np
import pytest

from soundreel.data.copies import group_copies, perceptual_hashes
from soundreel.data.manifest import load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.data.scan import scan
from soundreel.media.encode import write_mkv, write_mp4


def scene(path, seed, *, size=(48, 64), write=write_mkv, duration_s=2.0):
    """A few soft blobs that move; another seed is another scene."""
    rng = np.random.default_rng(seed)
    places, speeds = rng.uniform(0.2, 0.8, (5, 2)), rng.uniform(-0.1, 0.1, (5, 2))
    colours = rng.uniform(40, 250, (5, 3))
    y, x = ((np.arange(n) + 0.5) / n for n in size)
    frames = []
    for k in range(round(10 * duration_s)):
        picture = np.full((*size, 3), 60.0)
        for place, speed, colour in zip(places, speeds, colours, strict=True):
            top, left = place + speed * k / 10
            near = np.exp(-((y[:, None] - top) ** 2 + (x - left) ** 2) / 0.02)
            picture += near[:, :, None] * (colour - picture)
        frames.append(picture.astype(np.uint8))
    time_s = np.arange(round(16_000 * duration_s)) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (300 + 40 * seed) * time_s)[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, frames, tone.astype(np.float32), Fraction(10), 16_000)
    return path


def groups_of(folder, near=0.0, known=None):
    options = PrepareOptions()
    found = group_copies(scan(folder, options, folder / "none"), known or {}, near, 0)
    return {source.name: source.group for source in found}


def test_equal_files_are_one_source_and_that_is_said(tmp_path, caplog):
    first = scene(tmp_path / "a.mkv", 0)
    shutil.copy(first, tmp_path / "z.mkv")
    scene(tmp_path / "b.mkv", 1)
    (tmp_path / "c.mkv").write_bytes(b"x" * first.stat().st_size)  # of equal size only
    with caplog.at_level("WARNING"):
        groups = groups_of(tmp_path)
    assert groups == {"a.mkv": "a.mkv", "z.mkv": "a.mkv", "b.mkv": "b.mkv", "c.mkv": "c.mkv"}
    assert "1 files stay in one split" in caplog.text
    assert f"{tmp_path / 'z.mkv'} is a copy of {tmp_path / 'a.mkv'}" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_no_copy_lands_in_another_split(tmp_path, num_workers):
    for index in range(4):
        path = scene(tmp_path / "videos" / f"{index}.mkv", index)
        shutil.copy(path, tmp_path / "videos" / f"again {index}.mkv")
    root = tmp_path / "data"
    prepare_dataset(tmp_path / "videos", root, PrepareOptions(test=2.0), num_workers=num_workers)
    by_hash = {}
    for record in load_manifest(root):
        by_hash.setdefault(record.sha256, []).append((record.split, record.group))
    assert sorted(len(found) for found in by_hash.values()) == [2, 2, 2, 2]
    assert all(len(set(found)) == 1 for found in by_hash.values())
    splits = [record.split for record in load_manifest(root)]
    assert splits.count("test") == 4


def test_a_copy_added_later_takes_the_split_of_what_was_there(tmp_path):
    videos, root = tmp_path / "videos", tmp_path / "data"
    path = scene(videos / "m.mkv", 0)
    scene(videos / "n.mkv", 1)
    prepare_dataset(videos, root, PrepareOptions(test=1.0))
    before = {record.source: record.split for record in load_manifest(root)}
    for name in ("a.mkv", "z.mkv"):
        shutil.copy(path, videos / name)
    prepare_dataset(videos, root, PrepareOptions(test=1.0))
    after = {record.source: record.split for record in load_manifest(root)}
    assert {name: after[name] for name in before} == before
    assert after["a.mkv"] == after["z.mkv"] == before["m.mkv"]


def test_near_copies_are_joined_where_that_is_asked_for(tmp_path):
    scene(tmp_path / "a.mkv", 0)
    scene(tmp_path / "b.mp4", 0, size=(96, 128), write=write_mp4)
    scene(tmp_path / "c.mkv", 1)
    scene(tmp_path / "d.mkv", 0, duration_s=4.0)
    (tmp_path / "e.mkv").write_bytes(b"nothing")
    assert len(set(groups_of(tmp_path).values())) == 5
    groups = groups_of(tmp_path, near=0.1)
    assert groups["a.mkv"] == groups["b.mp4"]
    assert len(set(groups.values())) == 4


def test_even_pictures_have_no_hash(tmp_path, make_video):
    black = tmp_path / "black.mkv"
    write_mkv(black, np.zeros((20, 16, 16, 3), np.uint8), None, Fraction(10), 16_000)
    film = scene(tmp_path / "film.mkv", 0)
    found = perceptual_hashes([black, film], 0)
    assert list(found) == [film]
    assert found[film][0] == pytest.approx(2)
    assert found[film][1].shape == (8, 256)


def test_a_playlist_is_one_source_with_its_segments(tmp_path):
    for index in range(2):
        scene(tmp_path / "show" / f"part{index}.mkv", index)
    scene(tmp_path / "show" / "other.mkv", 7)
    (tmp_path / "show" / "low.m3u8").write_text(
        "#EXTM3U\n#EXTINF:2,\npart0.mkv\n#EXTINF:2,\npart1.mkv\nhttp://[x/away.ts\n"
    )
    (tmp_path / "main.m3u8").write_text('#EXTM3U\n#EXT-X-MEDIA:URI="show/low.m3u8"\n')
    groups = groups_of(tmp_path)
    together = ["main.m3u8", "show/low.m3u8", "show/part0.mkv", "show/part1.mkv"]
    assert {groups[name] for name in together} == {"main.m3u8"}
    assert groups["show/other.mkv"] == "show/other.mkv"


def test_groups_that_were_prepared_apart_stay_and_are_named(tmp_path, caplog):
    path = scene(tmp_path / "a.mkv", 0)
    shutil.copy(path, tmp_path / "b.mkv")
    with caplog.at_level("WARNING"):
        groups = groups_of(tmp_path, known={"a.mkv": "a.mkv", "b.mkv": "b.mkv"})
    assert groups == {"a.mkv": "a.mkv", "b.mkv": "b.mkv"}
    assert "--overwrite joins them" in caplog.text
