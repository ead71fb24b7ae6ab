"""A subset and the best of many sources, against computations of the tests' own."""

import hashlib
import random
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundreel.data import selection
from soundreel.data.options import RECIPES, PrepareOptions
from soundreel.data.scan import scan
from soundreel.data.selection import best_of, select, subset_of
from soundreel.media.errors import MediaError
from soundreel.media.probe import MediaInfo
from soundreel.systems.mm_ldm.recipes import RECIPES as MM_LDM

MEDIA_RATES = (Fraction(15), Fraction(24), Fraction(30000, 1001), Fraction(30))
NAMES = {"/m/09x0r": "Speech", "/m/04rlf": "Music", "/t/dd00003": "Male singing"}


@pytest.fixture(scope="module")
def audioset(tmp_path_factory) -> tuple[Path, list[str]]:
    """A list of 3,000 segments as published, its table of labels, and empty files of the videos."""
    folder, draw = tmp_path_factory.mktemp("audioset"), random.Random(5)
    ids = [f"{n:04d}" + "".join(draw.choices("abcXYZ_-", k=7)) for n in range(3000)]
    rows = [
        f"{i}, {draw.randrange(200)}.000, {draw.randrange(210, 220)}.000, "
        f'"{",".join(draw.sample(sorted(NAMES), draw.randint(1, 3)))}"\n'
        for i in ids
    ]
    head = "# Segments csv\n# num_ytids=3000\n# YTID, start_seconds, end_seconds, positive_labels\n"
    (folder / "unbalanced.csv").write_text(head + "".join(rows))
    table = "".join(f'{n},{mid},"{name}"\n' for n, (mid, name) in enumerate(NAMES.items()))
    (folder / "class_labels_indices.csv").write_text("index,mid,display_name\n" + table)
    for i in ids:
        (folder / f"{i}.mp4").touch()
    return folder / "unbalanced.csv", ids


def test_a_tenth_of_audioset_is_what_hashes_of_the_ids_say(audioset, tmp_path):
    origin, ids = audioset
    options = PrepareOptions(subset="10%", seed=3)
    chosen = select(scan(origin, options, exclude=tmp_path), options, tmp_path)
    order = sorted(ids, key=lambda i: hashlib.sha256(b"3:" + i.encode()).hexdigest())
    assert {source.group for source in chosen} == set(order[:300])
    assert all(set(source.caption.split(", ")) <= set(NAMES.values()) for source in chosen)
    assert MM_LDM["audioset-mm-ldm"].options.subset == "10%"
    assert MM_LDM["audioset-mm-ldm"].options.best == 0, "MM-LDM's data are not filtered by quality"


def test_the_best_of_audioset_are_ranked_by_frame_rate_then_size(audioset, tmp_path, monkeypatch):
    origin, ids = audioset
    draw = random.Random(6)
    headers = {i: (draw.choice(MEDIA_RATES), draw.randint(100, 900), 480) for i in ids}
    broken = set(ids[::7])

    def header(path: Path) -> MediaInfo:
        if path.stem in broken:
            raise MediaError(path, "damaged", "get another")
        rate, width, height = headers[path.stem]
        return MediaInfo(
            path=str(path),
            duration=None,
            has_video=True,
            has_audio=True,
            height=height,
            width=width,
            frame_rate=rate,
        )

    monkeypatch.setattr(selection, "probe", header)
    options = PrepareOptions(best=400)
    assert RECIPES["audioset"].options.best == 20_000
    chosen = select(scan(origin, options, exclude=tmp_path), options, tmp_path)
    readable = [i for i in ids if i not in broken]
    # Stable sorts from the least important key to the most important one.
    readable.sort()
    readable.sort(key=lambda i: headers[i][1] * headers[i][2], reverse=True)
    readable.sort(key=lambda i: headers[i][0], reverse=True)
    assert {source.group for source in chosen} == set(readable[:400])
    listed = (tmp_path / "chosen.csv").read_text().splitlines()[1:]
    assert [line[:11] for line in listed] == readable[:400]


@given(st.sets(st.text(max_size=8), max_size=40), st.integers(1, 100), st.integers(0, 5))
def test_a_subset_has_its_share_and_grows_by_inclusion(groups, percent, seed):
    part = subset_of(groups, f"{percent}%", seed)
    assert len(part) == round(Fraction(percent, 100) * len(groups))
    assert part <= subset_of(groups, "100%", seed) == groups
    assert part == subset_of(sorted(groups, reverse=True), str(len(part)), seed)


def test_equal_quality_is_ranked_by_name():
    assert best_of({"b": (Fraction(1), 2), "a": (Fraction(1), 2), "c": (Fraction(1), 3)}, 2) == [
        "c",
        "a",
    ]


@pytest.mark.parametrize("subset", ["0%", "101%", "ten", "5 %", "-3", "0", "1.5"])
def test_an_impossible_subset_is_refused(subset):
    with pytest.raises(ValueError, match=r"percentage such as 10% or a number"):
        PrepareOptions(subset=subset)
