"""Data sets behind a URL give the batches of local ones; no server is trusted."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
import torch

from soundreel.cli.main import run
from soundreel.data import remote
from soundreel.data.clip_cache import ClipCache, cache_bytes
from soundreel.data.dataset import PreparedDataset
from soundreel.data.loader import Batch, Loader
from soundreel.data.manifest import DataError, load_manifest
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.data.remote import checked_url, data_folder, remote_url, shard_range
from soundreel.data.shards import ShardReader
from soundreel.data.verify import verify_dataset
from soundreel.json_yaml import write_checked_json
from soundreel.types import ClipSpec

SPEC = ClipSpec(num_frames=16, height=8, width=8)


@pytest.fixture(scope="module")
def local(tmp_path_factory, make_video_anywhere) -> Path:
    """Six clips of 2 s."""
    root = tmp_path_factory.mktemp("served")
    for number in range(6):
        make_video_anywhere(root / "in" / f"{number}.mkv", first_level=20 * number)
    prepare_dataset(root / "in", root / "set", PrepareOptions(height=8, width=8))
    return root / "set"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SOUNDREEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSES_S", (0.0, 0.0))
    return (tmp_path / "cache").resolve()


@pytest.fixture
def served(local, serving):
    with serving(local.parent) as served:
        served.url += "/set"
        yield served


def _batches(root: Path, first: int, count: int, **where: int) -> list[Batch]:
    dataset = PreparedDataset(root, spec=SPEC)
    loader = Loader(dataset, global_batch_size=4, seed=3, start_sample=first, **where)
    return list(islice(loader, count))


def _equal(one: Batch, other: Batch) -> bool:
    names = [(b.keys, b.start_frames, b.sample_index) for b in (one, other)]
    return names[0] == names[1] and all(
        torch.equal(one.av[name], other.av[name]) for name in ("video", "audio")
    )


def test_batches_of_ranks_and_workers_resumed_anywhere_are_those_of_local_data(local, served):
    root = data_folder(served.url)
    for rank in (0, 1):
        where = {"rank": rank, "world_size": 2}
        whole = _batches(local, 0, 9, **where)
        begun = _batches(root, 0, 4, **where, num_workers=rank)
        resumed = _batches(root, 4 * 4, 5, **where, num_workers=rank)
        assert all(map(_equal, whole, begun + resumed))


def test_only_the_clips_are_read_and_each_once(local, served, cache):
    root = data_folder(served.url)
    records = load_manifest(local)
    del served.ranges[:]
    _batches(root, 0, 12)
    clips = {(r.shard, r.offset, r.num_bytes) for r in records}
    assert len(served.ranges) == len(clips)
    assert {(path.removeprefix("set/"), *place) for path, *place in served.ranges} == clips
    kept = sorted(path.stem for path in (cache / "clips").rglob("*.mkv"))
    assert kept == sorted(record.sha256 for record in records)


@pytest.mark.parametrize(("size", "has_room"), [("0", False), ("0.033", False), ("0.036", True)])
def test_clips_are_kept_as_the_size_of_the_cache_allows(
    local, served, cache, monkeypatch, size, has_room
):
    """Of its 256 folders, each has room for no clip of 132 KB, or for one."""
    monkeypatch.setenv("SOUNDREEL_CACHE_GB", size)
    assert all(map(_equal, _batches(local, 0, 6), _batches(data_folder(served.url), 0, 6)))
    folders = {record.sha256[:2] for record in load_manifest(local)}
    kept = [path.parent.name for path in (cache / "clips").rglob("*.mkv")]
    assert sorted(kept) == (sorted(folders) if has_room else [])


def test_lists_are_copied_once_for_all_processes_and_anew_when_they_change(
    local, served, tmp_path, cache, serving
):
    with ThreadPoolExecutor(4) as pool:
        (root,) = set(pool.map(lambda _: data_folder(served.url), range(4)))
    assert root.parent == cache / "data"
    assert (root / "manifest.jsonl").read_bytes() == (local / "manifest.jsonl").read_bytes()
    changed = shutil.copytree(local, tmp_path / "other")
    about = json.loads((changed / "dataset.json").read_text())
    del about["checksum"]
    write_checked_json(changed / "dataset.json", about | {"origin": "elsewhere"})
    with serving(tmp_path) as other:
        root = data_folder(f"{other.url}/other/")
        shutil.copy(local / "dataset.json", changed / "dataset.json")
        assert data_folder(f"{other.url}/other") != root


def test_verify_and_the_command_line_read_a_url(local, served, capsys):
    assert verify_dataset(data_folder(served.url)) == 6
    assert run(["info", served.url, "--verify"]) == 0
    assert "6 of 20 to 20 frames" in capsys.readouterr().out
    assert run(["info", served.url + "/nothing"]) == 2
    error = capsys.readouterr().err
    assert f"{served.url}/nothing/dataset.json cannot be read" in error
    assert error.count("\n") == 1


def test_object_stores_are_read_through_fsspec(local, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.dirfs import DirFileSystem
    from fsspec.implementations.local import LocalFileSystem

    class Bucket(DirFileSystem):
        protocol = "s3"

        def _join(self, path: str) -> str:
            return super()._join(path.removeprefix("s3://bucket/"))

    asked = []

    def file_system(scheme: str, **options: bool) -> Bucket:
        asked.append((scheme, options))
        return Bucket(path=str(local.parent), fs=LocalFileSystem())

    monkeypatch.setattr(fsspec, "filesystem", file_system)
    remote._file_system.cache_clear()
    try:
        root = data_folder("s3://bucket/set")
        assert all(map(_equal, _batches(local, 0, 3), _batches(root, 0, 3)))
        with pytest.raises(DataError, match=r"s3://bucket/none/dataset\.json cannot be read"):
            data_folder("s3://bucket/none")
    finally:
        remote._file_system.cache_clear()
    assert asked == [("s3", {"skip_instance_cache": True})]


def test_a_passing_fault_is_waited_for_and_a_lasting_one_named(served):
    served.num_failures = 2
    root = data_folder(served.url)
    served.num_failures = 3
    record = load_manifest(root)[0]
    message = f"{served.url}/{record.shard} cannot be read: .*503"
    with closing(ShardReader(root)) as reader, pytest.raises(DataError, match=message):
        reader.read(record)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("whole", "no HTTP ranges"),
        ("endless", "sends more than it is asked"),
        ("short", "ends before byte"),
        ("elsewhere", "cannot be read"),
    ],
)
def test_servers_that_answer_otherwise_are_named(served, local, fault, message):
    root = data_folder(served.url)
    served.fault = fault
    record = load_manifest(local)[0]
    with closing(ShardReader(root)) as reader, pytest.raises(DataError, match=message) as error:
        reader.read(record)
    assert served.url in str(error.value)


def test_damage_on_the_way_or_in_the_cache_is_found(local, tmp_path, cache, serving):
    damaged = shutil.copytree(local, tmp_path / "set")
    record = load_manifest(local)[0]
    shard = damaged / record.shard
    content = bytearray(shard.read_bytes())
    content[record.offset + 50] ^= 1
    with serving(tmp_path) as served:
        root = data_folder(f"{served.url}/set")
        with closing(ShardReader(root)) as reader:
            reader.read(record)
            (kept,) = (cache / "clips").rglob("*.mkv")
            kept.write_bytes(bytes(record.num_bytes))
            assert reader.read(record) == kept.read_bytes()  # read anew
            kept.write_bytes(bytes(record.num_bytes))
            shard.write_bytes(content)
            with pytest.raises(DataError, match=f"{served.url}.*{record.key} is damaged"):
                reader.read(record)
        (damaged / "manifest.jsonl").write_bytes(b"{}\n")
        shutil.rmtree(cache)
        with pytest.raises(DataError, match=r"/set/manifest\.jsonl: damaged"):
            data_folder(f"{served.url}/set")
    assert not list((cache / "data").glob("*"))


def test_a_list_that_is_too_long_is_not_read(served, monkeypatch):
    monkeypatch.setattr(remote, "MAX_LIST_BYTES", 100)
    with pytest.raises(DataError, match=r"manifest\.jsonl has .* bytes; at most 100 are read"):
        data_folder(served.url)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/set",
        "file:///etc",
        "https:///set",
        "https://host/set?key=1",
        "https://me:secret@host/set",
        "https://host/a set",
        "https://[host/set",
        "simplecache::s3://bucket/set",
    ],
)
def test_other_urls_are_refused(text):
    with pytest.raises(DataError, match="URL") as error:
        checked_url(text)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("shard", ["shards/../x.tar", "shards/a?b.tar", "../x", "shards/a b.tar"])
def test_shards_without_a_plain_name_are_not_asked_for(shard):
    with pytest.raises(DataError, match="the manifest names"):
        shard_range("https://host.invalid/set", shard, 0, 10)


def test_a_folder_elsewhere_cannot_name_a_server(local, tmp_path):
    copy = shutil.copytree(local, tmp_path / "copy")
    write_checked_json(copy / remote.URL_FILE, {"url": "https://host.invalid/set"})
    assert remote_url(copy) == ""


def test_the_cache_keeps_what_was_used_last_and_to_its_size(tmp_path):
    cache = ClipCache(tmp_path, 256 * 1000)
    names = [f"ab{number:062x}" for number in range(5)]
    for name in names[:3]:
        cache.put(name, bytes(300))
        time.sleep(0.01)
    leftover = tmp_path / "ab" / f".{names[4]}.mkv.00000000-1-1.part"
    leftover.write_bytes(bytes(10))
    assert cache.get(names[0], 300) == bytes(300)
    cache.put(names[3], bytes(300))
    assert [cache.get(name, 300) is None for name in names] == [False, True, False, False, True]
    cache.put(names[4], bytes(1001))
    assert cache.get(names[4], 1001) is None
    assert cache.get(names[3], 299) is None
    with pytest.raises(DataError, match="no SHA-256"):
        cache.get("../../etc/passwd", 10)


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_a_size_of_the_cache_that_is_none_is_named(monkeypatch, text):
    monkeypatch.setenv("SOUNDREEL_CACHE_GB", text)
    with pytest.raises(DataError, match="SOUNDREEL_CACHE_GB"):
        cache_bytes()
    os.environ["SOUNDREEL_CACHE_GB"] = "0"
    assert cache_bytes() == 0
