"""`soundreel info` on everything that it describes."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from soundreel.checkpoints.adapter import save_lora
from soundreel.checkpoints.lora import LoRAConfig, add_lora
from soundreel.checkpoints.store import read_model
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.config_io import save_json
from soundreel.data.captions import CaptionStates
from soundreel.data.latent_files import save_tensors
from soundreel.json_yaml import write_checked_json
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
def test_a_damaged_configuration_of_a_run_is_one_line(
    damage, told_of, staged_run, edit_json, capsys
):
    edit_json(staged_run / "config.json", damage)
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


def test_everything_of_a_run_is_verified(small_run, tmp_path, capsys):
    """Its settings, latents, captions and adapters, too, in whatever folder they lie."""
    root = tmp_path / "run"
    shutil.copytree(small_run, root)
    CaptionStates({"a": "dog"}, lambda c: torch.ones(1, 2, 3), root / "captions", fingerprint="")
    (root / "latents").mkdir()
    save_tensors({"mean": torch.ones(4)}, root / "latents" / "stats.safetensors")
    write_checked_json(root / "latents" / "cache.json", {"num_windows": 0})
    network = nn.Sequential(nn.Linear(2, 2))
    add_lora(network, LoRAConfig(rank=1))
    state = network.state_dict()
    about = {"component": "unet", "model": "base"}
    save_lora(network, state, LoRAConfig(rank=1), root / "unet" / "adapter", **about)
    assert run(["info", str(root), "--verify"]) == 0
    said = capsys.readouterr().out.rpartition("verified: ")[2].strip()
    assert said == "1 models, 1 adapters, 2 checkpoints, 0 latents, 1 captions"
    for path in (
        *("config.json", "model/model_index.json", "model/unet/config.json"),
        *("unet/adapter/adapter_config.json", "unet/adapter/adapter_model.safetensors"),
        *("latents/stats.safetensors", "latents/cache.json"),
        *("captions/captions.json", "captions/states.safetensors"),
    ):
        whole = (root / path).read_bytes()
        changed = whole[:-1] + b"\7"
        if path.endswith(".json"):  # one value of them, so that it is still JSON of its kind
            values = json.loads(whole)
            name = next(
                name
                for name in ("lora_alpha", "system", "format_version", *values)
                if name in values
            )
            changed = json.dumps(values | {name: 7}).encode()
        (root / path).write_bytes(changed)
        assert run(["info", str(root), "--verify"]) == 2
        line = capsys.readouterr().err
        assert "damaged since it was written" in line
        assert path.rpartition("/")[0] in line
        assert line.count("\n") == 1
        (root / path).write_bytes(whole)


def test_a_study_is_told_and_verified(told, tmp_path, capsys):
    for name in ("one", "real"):
        (tmp_path / name).mkdir()
        frames = np.zeros((12, 32, 32, 3), np.uint8)
        Clip(frames, np.full((1, 19_200), 0.1, np.float32), Fraction(10), 16_000).save(
            tmp_path / name / "a.mkv"
        )
    folder = tmp_path / "study"
    flags = ["--mos-trials", "1", "--turing-trials", "1", "--noise-checks", "0"]
    systems = ["--system", f"one={tmp_path / 'one'}", "--real", str(tmp_path / "real")]
    assert run(["study", "create", str(folder), *systems, *flags]) == 0
    capsys.readouterr()
    lines = told(folder)
    assert lines["clips"] == "one 1, real 1"
    assert lines["format"] == "32x32 at 10 per second, 16000 Hz, 1.2 s"
    assert run(["info", str(folder), "--verify"]) == 0
    assert "verified: 2 clips of a study" in capsys.readouterr().out
    clip = next((folder / "clips").iterdir())
    clip.write_bytes(clip.read_bytes()[:-1] + b"\7")
    assert run(["info", str(folder), "--verify"]) == 2
    assert f"{clip.name} was changed" in capsys.readouterr().err
