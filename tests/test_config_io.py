"""Configurations: what is written loads back equal, and whatever is wrong is named."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from soundreel.config_io import (
    ConfigError,
    config_from_json,
    config_to_json,
    load_json,
    merge_file,
    save_json,
)
from soundreel.errors import SoundreelError
from soundreel.systems import preset, preset_names
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: Fraction = Fraction(30000, 1001)
    scale: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 4
    mults: tuple[int, ...] = (1, 2)
    pair: tuple[int, float] = (3, 1.5)
    mode: Literal["a", "b"] = "a"
    flag: bool = True
    limit: int | None = None
    inner: Inner = Inner()
    names: dict[str, int] | None = None
    extra: Any = None

    def __post_init__(self) -> None:
        if self.width <= 0:
            raise SoundreelError(f"width must be positive, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """A dataclass whose fields have changed since an older release."""

    whitening: float = 0.5
    inner: Inner
    old_keys: ClassVar[Mapping[str, str | None]] = {"evening": "whitening", "freeze": None}
    removed: ClassVar[Mapping[str, Any]] = {"passes": "one", "phase": {"enabled": False}}


def test_a_configuration_survives_json():
    config = Config(width=7, mults=(3, 4, 5), limit=2, inner=Inner(scale=2.0), names={"x": 1})
    text = json.dumps(config_to_json(config))
    assert config_from_json(Config, json.loads(text), "here") == config


@given(
    st.builds(
        Config,
        width=st.integers(1),
        mults=st.lists(st.integers()).map(tuple),
        pair=st.tuples(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
        mode=st.sampled_from(["a", "b"]),
        flag=st.booleans(),
        limit=st.none() | st.integers(),
        inner=st.builds(Inner, rate=st.fractions(), scale=st.floats(-1e9, 1e9)),
        names=st.none() | st.dictionaries(st.text(), st.integers()),
    )
)
def test_every_configuration_survives_json(config):
    assert config_from_json(Config, json.loads(json.dumps(config_to_json(config))), "x") == config


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(sorted(config_to_json(Config()))), JSON)
def test_any_value_of_any_key_fits_or_is_named(key, value):
    said = key
    try:
        config_from_json(Config, {key: value}, "file.json")
    except ConfigError as error:
        said = str(error)
    assert key in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widht": 3}, r"config\.json: unknown key widht \(did you mean width\?\)"),
        ({"colour": 3}, r"unknown key colour \(known: width, mults, pair"),
        ({"width": None}, r"width: expected an integer, got None"),
        ({"width": True}, r"width: expected an integer, got True"),
        ({"width": 1.5}, r"width: expected an integer, got 1\.5"),
        ({"width": 0}, "width must be positive, got 0"),
        ({"flag": 1}, "flag: expected true or false"),
        ({"mode": "c"}, "mode: expected one of 'a', 'b', got 'c'"),
        ({"mults": [1, "2"]}, r"mults\[1\]: expected an integer"),
        ({"mults": 1}, "mults: expected a list, got 1"),
        ({"pair": [1]}, "pair: expected a list of 2"),
        ({"pair": [1, float("nan")]}, r"pair\[1\]: expected a number, got nan"),
        ({"inner": {"rate": "30/0", "scale": 1}}, r"inner\.rate: expected a fraction"),
        ({"inner": {"ratte": 1}}, r"unknown key inner\.ratte"),
        ({"inner": 3}, "inner: expected the settings of a Inner, got 3"),
        ({"names": {"a": "b"}}, r"names\.a: expected an integer, got 'b'"),
        ({"width": "x", "flag": 2}, "width: expected an integer.*flag: expected true"),
    ],
)
def test_whatever_is_wrong_is_named(change, message):
    value = config_to_json(Config()) | change
    with pytest.raises(ConfigError, match=message) as caught:
        config_from_json(Config, value, "config.json")
    assert len(str(caught.value).splitlines()) == 1


def test_an_absent_key_takes_its_default_or_is_named():
    value = config_to_json(Config(width=9))
    del value["mults"], value["inner"]["rate"]
    assert config_from_json(Config, value, "config.json") == Config(width=9)
    with pytest.raises(ConfigError, match=r"config\.json: missing key inner"):
        config_from_json(Renamed, {}, "config.json")


def test_a_setting_without_effect_is_refused_in_what_people_write(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("freeze: true")
    with pytest.raises(ConfigError, match="freeze has no effect; leave it out"):
        merge_file(Renamed(inner=Inner()), path)


def test_a_removed_option_is_read_where_it_was_off_and_named_where_it_was_on(tmp_path):
    off = {"inner": {}, "passes": "one", "phase": {"enabled": False, "rate": 3}}
    assert config_from_json(Renamed, off, "old.json") == Renamed(inner=Inner())
    for changes, named in (
        (
            {"passes": "two"},
            "passes is an option that was removed: 'one' is still read, 'two' needs",
        ),
        (
            {"phase": {"enabled": True}},
            "phase is an option that was removed: {'enabled': False} is",
        ),
    ):
        with pytest.raises(ConfigError, match=rf"^old\.json: {named}") as caught:
            config_from_json(Renamed, off | changes, "old.json")
        assert "\n" not in str(caught.value)
    path = tmp_path / "mine.yaml"
    path.write_text("passes: one")
    with pytest.raises(ConfigError, match="passes is no longer an option; leave it out"):
        merge_file(Renamed(inner=Inner()), path)


def test_renamed_and_removed_keys_of_older_files_are_read_where_the_type_says_so():
    old = {"evening": 0.25, "freeze": True, "inner": {}}
    assert config_from_json(Renamed, old, "x") == Renamed(whitening=0.25, inner=Inner())
    with pytest.raises(ConfigError, match="evening and whitening are one setting"):
        config_from_json(Renamed, old | {"whitening": 0.5}, "x")
    assert set(config_to_json(Renamed(inner=Inner()))) == {"whitening", "inner"}


def test_an_unwritable_value_is_refused():
    with pytest.raises(TypeError, match="cannot hold a Tensor"):
        config_to_json(Config(extra=torch.zeros(1)))


@pytest.mark.parametrize("name", sorted(preset_names()))
def test_a_preset_written_to_a_file_loads_back_equal(name, tmp_path):
    config = preset(name)
    save_json(config, tmp_path / "config.json")
    assert load_json(type(config), tmp_path / "config.json") == config
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config_to_json(config)))
    assert merge_file(config, tmp_path / "config.yaml") == config


def test_a_file_changes_only_what_it_names(tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text(
        "unet: {width: 64}\ntrain: {learning_rate: 3e-4}\nclip: {frame_rate: 30000/1001}\n"
    )
    base = MMDiffusionConfig()
    merged = merge_file(base, path)
    assert merged.unet.width == 64
    assert merged.train.learning_rate == 3e-4  # YAML reads 3e-4 as text
    assert str(merged.clip.frame_rate) == "30000/1001"
    assert merged.unet.channel_mult == base.unet.channel_mult


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unet: {widht: 64}", r"unknown key unet\.widht"),
        ("trian: {}", "unknown key trian"),
        ("train: {learning_rate: fast}", r"train\.learning_rate.*got 'fast'"),
        ("train: {global_batch_size: 6, micro_batch_size: 4}", "multiple of micro_batch_size 4"),
        ("clip: {num_frames: 8}", "unet.num_frames 16 must equal clip.num_frames 8"),
        ("diffusion: {schedule: sigmoid}", r"diffusion\.schedule"),
        ("train: {total_samples: 1.5}", r"train\.total_samples: expected an integer, got 1\.5"),
        ("[1, 2]", "expected a mapping"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_key_or_value_is_named(text, words, tmp_path):
    path = tmp_path / "changes.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        merge_file(MMDiffusionConfig(), path)


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        merge_file(MMDiffusionConfig(), tmp_path / "absent.yaml")


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="one of: mm-diffusion-landscape"):
        preset("mm-diffusion-huge")


def bombs() -> dict[str, str]:
    """Small files that would take all memory or time, or Python's whole stack."""
    laughs = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    merges = ["a0: &a0 {x: 1}"] + [
        f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)
    ]
    return {
        "deep.yaml": "[" * 50_000,
        "deep pairs.yaml": "{a: " * 5_000 + "1" + "}" * 5_000,
        "indented.yaml": "".join(f"{' ' * n}a:\n" for n in range(400)),
        "laughs.yaml": "\n".join(laughs),
        "merges.yaml": "\n".join(merges),
        "itself.yaml": "train: &a {b: *a}",
        "tag.yaml": "!!python/object/apply:os.system ['true']",
        "large.yaml": "a: " + "x" * 2**20,
        "bytes.yaml": "\x00\ud800",
        "deep.json": "[" * 1_000_000,
        "deep pairs.json": '{"train":' * 500 + "1" + "}" * 500,
        "large.json": '"' + "x" * 2**25 + '"',
        "digits.json": '{"train": {"total_samples": ' + "9" * 10_000 + "}}",
        "huge.json": '{"train": {"total_samples": 1e999}}',
        "empty.json": "",
    }


READERS: dict[str, Callable[[Path], Any]] = {
    ".yaml": lambda path: merge_file(MMDiffusionConfig(), path),
    ".json": lambda path: load_json(MMDiffusionConfig, path),
}


@pytest.mark.parametrize("name", sorted(bombs()))
def test_a_bomb_is_one_line(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(bombs()[name].encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError) as caught:
        READERS[path.suffix](path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000
