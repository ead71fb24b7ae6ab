import pytest
import yaml

from soundreel.checkpoints.config_json import config_to_json
from soundreel.config import ConfigError, load_json, merge_file, save_json
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.presets import PRESETS, preset


@pytest.mark.parametrize("name", sorted(PRESETS))
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
        ("diffusion: {schedule: cosine}", r"diffusion\.schedule"),
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
