"""What every pipeline is asked: counts, seeds, given clips and classes, checked before work."""

from fractions import Fraction

import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.request import check_counts, find_label, read_given
from soundreel.types import ClipSpec

SPEC = ClipSpec(num_frames=4, height=8, width=8, frame_rate=Fraction(10), sample_rate=8000)
NAMES = ("cat", "dog", "7")


@pytest.mark.parametrize(
    ("label", "expected"), [(None, None), (1, 1), ("dog", 1), ("0", 0), ("7", 2)]
)
def test_a_class_is_found_by_name_or_number(label, expected):
    assert find_label(label, NAMES) == expected


@pytest.mark.parametrize(
    ("label", "names", "words"),
    [
        ("cow", NAMES, "class 'cow' is none of this model's: cat, dog, 7"),
        (3, NAMES, "label 3 is not among this model's 3 classes"),
        (-1, NAMES, "label -1 is not among"),
        (0, (), "this model has no classes"),
    ],
)
def test_a_class_that_the_model_lacks_is_named(label, names, words):
    with pytest.raises(SoundreelError, match=words):
        find_label(label, names)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ((0, 0, 4), "count and batch_size start at 1"),
        ((1, 0, 0), "count and batch_size start at 1"),
        ((1, -1, 4), "seed is a whole number from 0"),
        ((4, 2**63 - 2, 4), "seed is a whole number from 0"),
    ],
)
def test_counts_and_seeds_that_cannot_be_are_refused(request_, words):
    with pytest.raises(SoundreelError, match=words):
        check_counts(*request_)


def test_a_path_is_read_at_the_models_rates(tmp_path):
    frames = np.zeros((20, 8, 8, 3), np.uint8)
    Clip(frames, np.zeros((1, 16_000), np.float32), Fraction(20), 16_000).save(tmp_path / "a.mkv")
    assert read_given(None, None, SPEC) is None
    given = read_given(tmp_path / "a.mkv", None, SPEC)
    assert given is not None
    assert given.modality == "video"
    assert (given.clip.frame_rate, given.clip.sample_rate) == (10, 8000)
    assert read_given(None, str(tmp_path / "a.mkv"), SPEC).modality == "audio"


def test_both_or_an_absent_modality_are_refused():
    silent = Clip(np.zeros((4, 8, 8, 3), np.uint8), None, Fraction(10))
    with pytest.raises(SoundreelError, match="video and audio are both given"):
        read_given(silent, silent, SPEC)
    with pytest.raises(SoundreelError, match="the clip given as audio has none"):
        read_given(None, silent, SPEC)
