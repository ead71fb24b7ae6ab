"""The one list of systems: each keeps what it declares."""

from dataclasses import fields

import pytest

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import ModelIndex, save_model_index
from soundreel.config_io import ConfigError
from soundreel.protocols import System, with_options
from soundreel.systems import (
    SYSTEMS,
    all_systems,
    load,
    load_upscaler,
    preset,
    preset_names,
    system,
)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_what_the_list_says(name):
    entry = system(name)
    assert isinstance(entry, System)
    assert entry.name == name
    for make in entry.presets.values():
        config = make()
        assert isinstance(config, entry.config_type)
        assert config.system == name
        names = [stage.name for stage in entry.stages(config)]
        assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_option_has_help_and_a_default_within_its_range(name):
    options = system(name).options()
    values = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    assert with_options(options, values) == options
    for entry in fields(options):
        assert entry.metadata["help"].endswith(".")


def test_options_of_one_name_mean_one_thing():
    kinds: dict[str, set[str]] = {}
    for entry in all_systems():
        for own in fields(entry.options):
            kinds.setdefault(own.name, set()).add(str(type(own.default)))
    assert {name: types for name, types in kinds.items() if len(types) > 1} == {}


def test_names_are_unique_and_unknown_ones_list_the_known():
    names = preset_names()
    assert len(set(names)) == len(names)
    with pytest.raises(ConfigError, match="unknown preset 'huge'; one of: mm-diffusion-landscape"):
        preset("huge")
    with pytest.raises(ConfigError, match="unknown system 'other'"):
        system("other")


def test_a_folder_of_another_kind_is_named(tmp_path):
    save_model_index(tmp_path / "new", ModelIndex(system="later", components={}))
    for opened in (load, load_upscaler):
        with pytest.raises(CheckpointError, match="unknown system 'later'; update soundreel"):
            opened(tmp_path / "new")
    save_model_index(tmp_path / "none", ModelIndex(system="mm-diffusion", components={}))
    with pytest.raises(CheckpointError, match="no complete mm-diffusion model, only nothing"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no model that enlarges clips, only nothing"):
        load_upscaler(tmp_path / "none")
