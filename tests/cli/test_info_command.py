"""`soundreel info` on everything that it describes."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from soundreel.checkpoints.store import read_model
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.config_io import save_json
from soundreel.systems import preset
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNetConfig, num_parameters
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline


@pytest.fixture
def told(capsys):
    """Run `soundreel info PATH`; its lines by name."""

    def tell(path):
        assert run(["info", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        return dict(line.split(": ", 1) for line in lines)

    return tell


def test_a_model_is_told_with_its_size_clips_and_settings(told, small_run):
    lines = told(small_run / "model")
    unet = MMDiffusionPipeline.load(read_model(small_run / "model")).unet
    count = num_parameters(unet.config)
    assert count < num_parameters(CoupledUNetConfig())
    assert f"{count:,} parameters" in lines["unet"]
    assert lines["system"] == "mm-diffusion"
    assert lines["clip"] == ("4 frames of 16x16 at 10 per second; 3200 samples at 8000 Hz; 0.4 s")
    assert lines["unet.width"] == "8"
    assert lines["unet.channel_mult"] == "1, 2"
    assert lines["samples_seen"] == "8"


def test_a_finished_run_is_told_with_losses_and_results(told, small_run):
    lines = told(small_run)
    assert lines["samples seen"] == "8 of 8, finished"
    assert " at first, " in lines["unet/mse_video"]
    assert " at first, " in lines["unet/mse_audio"]
    assert not any("_q0" in name for name in lines)
    assert lines["checkpoints"] == "000000004, 000000008"
    assert lines["last preview"] == str(small_run / "previews" / "000000008.png")
    assert lines["model"] == str(small_run / "model")


def test_an_unfinished_run_is_told_as_such(told, unfinished_run):
    lines = told(unfinished_run)
    assert lines["samples seen"] == "4 of 8"
    assert "last preview" not in lines


@pytest.fixture
def staged_run(small_run, tmp_path):
    """An MM-LDM run of which the first stage is finished and the second has begun."""
    settings = preset("mm-ldm-tiny")
    first = settings.first_stage
    train = replace(first.train, total_samples=8)
    settings = replace(settings, first_stage=replace(first, train=train))
    shutil.copytree(small_run, tmp_path / "run" / "first_stage")
    (tmp_path / "run" / "autoencoder").mkdir()
    save_json(settings, tmp_path / "run" / "config.json")
    return tmp_path / "run"


def test_a_run_in_stages_is_told_stage_by_stage(told, staged_run):
    lines = told(staged_run)
    assert lines["first_stage samples seen"] == "8 of 8, finished"
    assert lines["autoencoder samples seen"] == "0 of 320, no log line yet"
    assert lines["generator samples seen"] == "0 of 640, not begun"
    assert lines["model"] == "none yet"


def test_a_young_run_has_no_losses_at_first(told, staged_run):
    log = staged_run / "autoencoder" / "log.jsonl"
    numbers = {"samples": 80.0, "samples_per_s": 2.0, "time_left_s": 120.0, "ae/mse_video": 0.5}
    log.write_text(json.dumps(numbers) + "\n")
    lines = told(staged_run)
    assert lines["autoencoder samples seen"] == "80 of 320"
    assert lines["autoencoder ae/mse_video"] == "0.5000 now"
    assert lines["autoencoder time left"] == "0:02:00, as of the last log line"


@pytest.mark.parametrize(
    ("damage", "told_of"),
    [
        ({"generator": 3}, "generator: expected the settings"),
        ({"generator": {"train": []}}, "generator.train: expected the settings"),
        ({"generator": {"train": {"total_samples": "many"}}}, "total_samples: expected"),
        ({"system": "of-tomorrow"}, "unknown system 'of-tomorrow'"),
        ({"system": None}, "unknown system 'None'"),
    ],
)
def test_a_damaged_configuration_of_a_run_is_one_line(damage, told_of, staged_run, capsys):
    path = staged_run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    assert run(["info", str(staged_run)]) == 2
    line = capsys.readouterr().err
    assert told_of in line
    assert line.count("\n") == 1


def test_a_prepared_data_set_is_told_with_its_classes(told, small_dataset):
    lines = told(small_dataset)
    assert lines["frames"] == "16x16 at 10 per second"
    assert lines["classes"] == "cat 1, dog 2"


def test_a_clip_is_told_with_both_tracks(told, tmp_path):
    frames = np.zeros((12, 24, 32, 3), np.uint8)
    waveform = np.zeros((2, 8_000), np.float32)
    Clip(frames, waveform, Fraction(24), 16_000).save(tmp_path / "clip.mkv")
    lines = told(tmp_path / "clip.mkv")
    assert lines["duration"] == "0.500 s"
    assert lines["picture"] == "32x24 at 24 frames per second, ffv1"
    assert lines["sound"].startswith("16000 Hz, 2 channels, pcm_")


def test_a_silent_clip_is_told_as_such(told, tmp_path):
    Clip(np.zeros((4, 16, 16, 3), np.uint8), None, Fraction(8)).save(tmp_path / "clip.mkv")
    assert told(tmp_path / "clip.mkv")["sound"] == "none"


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_model_is_one_line(damage, small_run, tmp_path, capsys):
    shutil.copytree(small_run / "model", tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    if damage == "missing":
        weights.unlink()
    assert run(["info", str(tmp_path / "model")]) == 2
    line = capsys.readouterr().err
    assert "model.safetensors" in line
    assert line.count("\n") == 1


def test_a_folder_of_something_else_is_one_line_with_what_was_looked_for(tmp_path, capsys):
    assert run(["info", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "model_index.json" in line
    assert "dataset.json" in line


def test_all_of_a_run_a_model_and_a_data_set_can_be_verified(
    small_run, small_dataset, tmp_path, capsys
):
    for path, said in ((small_run, "1 models, 2 checkpoints"), (small_dataset, "clips")):
        assert run(["info", str(path), "--verify"]) == 0
        assert said in capsys.readouterr().out.rpartition("verified: ")[2]
    for name in ("model/unet/model.safetensors", "checkpoints/000000008/unet.safetensors"):
        shutil.copytree(small_run, tmp_path / "run")
        content = bytearray((tmp_path / "run" / name).read_bytes())
        content[-5] ^= 1
        (tmp_path / "run" / name).write_bytes(content)
        assert run(["info", str(tmp_path / "run"), "--verify"]) == 2
        line = capsys.readouterr().err
        assert name in line
        assert "damaged since it was written" in line
        shutil.rmtree(tmp_path / "run")
    assert run(["info", str(tmp_path), "--verify"]) == 2
