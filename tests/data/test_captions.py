"""Captions of clips, and their token states: one per distinct caption, computed once."""

import json
from fractions import Fraction

import pytest
import torch
from safetensors.torch import save_file

from soundreel.data.captions import CaptionStates, class_captions, read_captions, verify_states
from soundreel.data.manifest import ClipRecord, DataError, DatasetInfo, save_manifest


@pytest.fixture
def data(tmp_path):
    """Four clips of three sources; the last has no class."""
    root = tmp_path / "data"
    root.mkdir()
    records = []
    for number, (source, label) in enumerate(
        [("x/a.mp4", 0), ("x/a.mp4", 0), ("y/b.mp4", 1), ("z/c.mp4", -1)]
    ):
        records.append(
            ClipRecord(
                key=f"clip{number}",
                split="train",
                label=label,
                source=source,
                group=source,
                start_s=0.0,
                num_frames=16,
                num_samples=1600,
                num_clipped=0,
                shard="train-000000.tar",
                offset=0,
                num_bytes=1,
                sha256="",
            )
        )
    save_manifest(root, records)
    info = DatasetInfo(
        height=8,
        width=8,
        frame_rate=Fraction(10),
        sample_rate=1000,
        num_channels=1,
        classes=("camp_fire", "sea"),
        origin="videos",
    )
    info.save(root)
    return root


class Encode:
    """States that tell the caption; counts what it has read."""

    def __init__(self):
        self.read = []

    def __call__(self, captions):
        self.read += captions
        return torch.stack([torch.full((2, 3), float(len(caption))) for caption in captions])


def test_class_names_become_captions(data):
    expected = {"clip0": "camp fire", "clip1": "camp fire", "clip2": "sea"}
    assert class_captions(data) == expected


def test_a_data_set_without_classes_needs_a_list(data):
    lines = (data / "manifest.jsonl").read_text().splitlines()
    unlabelled = [json.dumps(json.loads(line) | {"label": -1}) for line in lines]
    (data / "manifest.jsonl").write_text("\n".join(unlabelled) + "\n")
    with pytest.raises(DataError, match="no classes to serve as captions"):
        class_captions(data)


def test_captions_come_from_a_list_by_source(data, tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text('source,caption\nx/a.mp4,"a fire, at night"\nz/c.mp4, waves \nother.mp4,dog\n')
    assert read_captions(path, data) == {
        "clip0": "a fire, at night",
        "clip1": "a fire, at night",
        "clip3": "waves",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,caption\nother.mp4,dog\n", "lists no video"),
        ("source,caption\nx/a.mp4,\n", "line 2: needs the columns"),
        ("path,words\nx/a.mp4,dog\n", "line 2: needs the columns"),
        ("", "lists no video"),
        (f"source,caption\nx/a.mp4,{'x' * 2**18}\n", "larger than field limit"),
    ],
)
def test_unusable_lists_give_one_line(data, tmp_path, text, message):
    path = tmp_path / "captions.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_captions(path, data)
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_captions(tmp_path / "absent.csv", data)


def test_each_distinct_caption_is_read_once_and_kept(data, tmp_path):
    encode, folder = Encode(), tmp_path / "states"
    captions = class_captions(data)
    states = CaptionStates(captions, encode, folder, fingerprint="a")
    assert encode.read == states.distinct == ["camp fire", "sea"]
    rows = states.of(["clip2", "clip0", "clip3"])
    assert rows.dtype == torch.float32
    assert rows[:, 0, 0].tolist() == [3, 9, 0], "a clip without a caption has zeros"
    assert torch.equal(states.of_caption("sea"), rows[0])
    again = CaptionStates(captions, encode, folder, fingerprint="a")
    assert torch.equal(again.of(["clip0"]), rows[1:2])
    assert len(encode.read) == 2
    CaptionStates(captions, encode, folder, fingerprint="b")
    CaptionStates({"clip0": "dog"}, encode, folder, fingerprint="b")
    assert len(encode.read) == 5, "another encoder or other captions are read anew"


def test_changed_states_are_noticed(data, tmp_path):
    captions, folder = class_captions(data), tmp_path / "states"
    CaptionStates(captions, Encode(), folder, fingerprint="a")
    assert verify_states(folder) == 2
    path = folder / "states.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
    states = CaptionStates(captions, Encode(), folder, fingerprint="a")
    assert states.of(["clip0"])[0, 0, 0] == 9
    for read in (lambda: states.of(["clip2"]), lambda: verify_states(folder)):
        with pytest.raises(DataError, match=r"states\.safetensors: caption 1 damaged since"):
            read()
    path.write_bytes(whole.replace(b"checksum", b"checksun"))
    with pytest.raises(DataError, match="damaged since"):
        CaptionStates(captions, Encode(), folder, fingerprint="a")
    save_file({"states": torch.ones(2, 2, 3).half()}, path)  # of an older release
    old = CaptionStates(captions, Encode(), folder, fingerprint="a")
    assert old.of(["clip0"])[0, 0, 0] == 1


def test_an_interrupted_caching_starts_again(data, tmp_path):
    captions, folder = class_captions(data), tmp_path / "states"

    def broken(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CaptionStates(captions, broken, folder, fingerprint="a")
    states = CaptionStates(captions, Encode(), folder, fingerprint="a")
    assert states.of(["clip2"])[0, 0, 0] == 3
