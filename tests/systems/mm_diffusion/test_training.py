"""Training the Coupled U-Net on real files, killed and resumed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundreel.checkpoints.lora import LoRAConfig
from soundreel.clip import Clip
from soundreel.config import DataConfig, PreviewConfig
from soundreel.config_io import ConfigError
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.errors import SoundreelError
from soundreel.systems import load
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNetConfig
from soundreel.systems.mm_diffusion.training import train_mm_diffusion
from soundreel.training.loop import TrainConfig
from soundreel.training.previews import save_preview
from soundreel.training.state import list_checkpoints
from soundreel.training.trackers import read_log
from soundreel.types import ClipSpec


def micro_config(num_workers=0, **train):
    settings = {
        "total_samples": 16,
        "global_batch_size": 4,
        "micro_batch_size": 2,
        "learning_rate": 1e-3,
        "ema_decay": 0.5,
        "log_every": 4,
        "save_every": 8,
        "preview_every": 0,
        "precision": "float32",
    }
    return MMDiffusionConfig(
        clip=ClipSpec(num_frames=4, height=16, width=16, sample_rate=8000),
        unet=CoupledUNetConfig(
            num_frames=4,
            width=8,
            channel_mult=(1, 2),
            num_res_blocks=1,
            video_attention_factors=(2,),
            cross_attention_factors=(2,),
            cross_attention_windows=(2,),
            num_heads=1,
            cross_head_width=0,
            num_groups=8,
            dropout=0.1,
        ),
        data=DataConfig(flip_probability=0.5, num_workers=num_workers),
        train=TrainConfig(**{**settings, **train}),
        preview=PreviewConfig(count=1, num_steps=2),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    random = np.random.default_rng(0)
    for index in range(3):
        frames = random.integers(0, 255, (12, 16, 16, 3), dtype=np.uint8)
        sound = (0.3 * random.standard_normal((1, 9600))).astype(np.float32).clip(-1, 1)
        Clip(frames, sound, Fraction(10), 8000).save(folder / f"{index}.mkv")
    root = tmp_path_factory.mktemp("prepared") / "data"
    options = PrepareOptions(height=16, width=16, sample_rate=8000, min_duration_s=0.4)
    prepare_dataset(folder, root, options)
    return root


def weights(out):
    newest = list_checkpoints(out / "checkpoints")[-1]
    return {p.name: load_file(p) for p in sorted(newest.glob("*.safetensors"))}


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train_mm_diffusion(micro_config(), data, whole)
    assert train_mm_diffusion(micro_config(total_samples=8), data, parts)
    assert train_mm_diffusion(micro_config(), data, parts, resume=True)

    expected, got = weights(whole), weights(parts)
    assert set(expected) == {
        "unet.safetensors",
        "unet.ema.safetensors",
        "unet.optimizer.safetensors",
    }
    for name, tensors in expected.items():
        assert tensors.keys() == got[name].keys()
        assert all(torch.equal(value, got[name][key]) for key, value in tensors.items()), name
    curves = [
        [{k: v for k, v in line.items() if "_per_s" not in k and "_left" not in k} for line in log]
        for log in (read_log(whole / "log.jsonl"), read_log(parts / "log.jsonl"))
    ]
    assert len(curves[0]) == 4
    assert curves[0] == curves[1]


@pytest.mark.usefixtures("process_as_before")
def test_a_run_leaves_a_model_that_generates_and_its_losses_by_quarter(data, tmp_path):
    train_mm_diffusion(micro_config(preview_every=8), data, tmp_path / "run")
    names = {key for line in read_log(tmp_path / "run" / "log.jsonl") for key in line}
    assert {"unet/mse_video", "unet/mse_audio", "time_left_s", "samples_per_s"} <= names
    assert {"unet/mse_video_q0", "unet/mse_audio_q3"} <= names
    previews = {p.name for p in (tmp_path / "run" / "previews").iterdir()}
    assert previews == {f"0000000{n}{s}" for n in ("08", "16") for s in ("-0.mp4", ".png")}
    pipeline = load(tmp_path / "run" / "model")
    assert pipeline.settings.samples_seen == 16
    averaged = weights(tmp_path / "run")["unet.ema.safetensors"]
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(value, averaged[name])


def test_previews_at_a_rate_that_mp4_lacks_are_matroska(tmp_path):
    clip = Clip(
        np.zeros((4, 16, 16, 3), np.uint8), np.zeros((1, 4000), np.float32), Fraction(10), 10_000
    )
    save_preview([clip], tmp_path, 8)
    assert {p.name for p in tmp_path.iterdir()} == {"000000008-0.mkv", "000000008.png"}


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT]
)
def test_a_signal_to_all_its_processes_saves_and_goes_on(data, tmp_path, number):
    """Ctrl-C and a batch system signal the whole group: the workers must not end first."""
    out = tmp_path / "run"
    code = (
        "from tests_run import micro_config; from pathlib import Path;"
        "from soundreel.systems.mm_diffusion.training import train_mm_diffusion;"
        f"train_mm_diffusion(micro_config(total_samples=100000, num_workers=2),"
        f" Path({str(data)!r}), Path({str(out)!r}))"
    )
    shutil.copy(__file__, tmp_path / "tests_run.py")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not read_log(out / "log.jsonl") and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 0
    seen = int(list_checkpoints(out / "checkpoints")[-1].name)
    assert 4 <= seen < 100_000
    assert load(out / "model").settings.samples_seen == seen
    more = micro_config(total_samples=seen + 4)
    assert train_mm_diffusion(more, data, out, resume=True)


def test_the_size_of_the_parts_of_a_batch_changes_no_loss(data, tmp_path):
    """All clips of a step see the same window shifts; only masks of dropout go by part."""
    logs = []
    for size in (4, 1):
        config = micro_config(micro_batch_size=size)
        config = replace(config, unet=replace(config.unet, dropout=0.0))
        train_mm_diffusion(config, data, tmp_path / str(size))
        logs.append(read_log(tmp_path / str(size) / "log.jsonl"))
    for line, other in zip(*logs, strict=True):
        losses = {name: value for name, value in line.items() if "/mse" in name}
        assert {name: other[name] for name in losses} == pytest.approx(losses, rel=1e-4)


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(data, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="no run to resume"):
        train_mm_diffusion(micro_config(), data, out, resume=True)
    train_mm_diffusion(micro_config(total_samples=4), data, out)
    with pytest.raises(ConfigError, match="holds a run already"):
        train_mm_diffusion(micro_config(), data, out)
    other = micro_config()
    other = replace(other, unet=replace(other.unet, dropout=0.0))
    with pytest.raises(ConfigError, match=r"\(unet\.dropout;"):
        train_mm_diffusion(other, data, out, resume=True)


def test_data_of_another_size_stops_before_anything_is_written(data, tmp_path):
    config = micro_config()
    config = replace(config, clip=replace(config.clip, height=32, width=32))
    with pytest.raises(ValueError, match="height 32"):
        train_mm_diffusion(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_epochs_are_windows_of_the_data_set(data, tmp_path):
    """Three clips of nine windows; nothing is written of a budget that makes no step."""
    config = micro_config(total_samples=0, epochs=2.0, global_batch_size=100)
    with pytest.raises(ConfigError, match="stage unet: total_samples 54 is less than"):
        train_mm_diffusion(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bfloat16_and_recomputation_train(data, tmp_path):
    config = micro_config(precision="bfloat16", checkpoint_activations=True, total_samples=4)
    assert train_mm_diffusion(config, data, tmp_path / "run")
    assert all(
        np.isfinite(v) for line in read_log(tmp_path / "run" / "log.jsonl") for v in line.values()
    )


def test_the_coupled_unet_is_not_compiled():
    with pytest.raises(SoundreelError, match=r"train\.compile: .* set it to False"):
        micro_config(compile=True)


def test_an_adapter_on_its_model_equals_the_merged_model_and_resumes_exactly(data, tmp_path):
    first = tmp_path / "first"
    assert train_mm_diffusion(micro_config(), data, first)
    model = str(first / "model")
    config = micro_config(lora=LoRAConfig(rank=2, targets="all"), learning_rate=1e-2)
    with pytest.raises(ConfigError, match="name its model with --init"):
        train_mm_diffusion(config, data, tmp_path / "tuned")
    for name in ("tuned", "again"):
        half = replace(config, train=replace(config.train, total_samples=8))
        if name == "again":
            assert train_mm_diffusion(half, data, tmp_path / name, init=model)
        assert train_mm_diffusion(config, data, tmp_path / name, init=model, resume=name == "again")
    adapters = [tmp_path / name / "adapter" for name in ("tuned", "again")]
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in adapters)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(v.abs().max() > 0 for v in one.values())  # every product learned something
    merged = load(tmp_path / "tuned" / "model", device="cpu").unet.state_dict()
    begun = load(model, device="cpu").unet.state_dict()
    joined = load(model, adapter=adapters[0], device="cpu").unet.state_dict()
    for key, value in merged.items():
        assert torch.allclose(joined[key], value, atol=1e-6)
        is_adapted = f"base_model.model.{key.removesuffix('.weight')}.lora_A.weight" in one
        assert is_adapted != torch.equal(value, begun[key]), key


def test_training_starts_from_an_earlier_model_and_resumes_so(data, tmp_path):
    first = tmp_path / "first"
    assert train_mm_diffusion(micro_config(), data, first)
    model = first / "model"
    still = micro_config(learning_rate=1e-12, ema_decay=0.0, total_samples=4)
    assert train_mm_diffusion(still, data, tmp_path / "tuned", init=str(model))
    before, after = (
        load_file(folder / "unet" / "model.safetensors")
        for folder in (model, tmp_path / "tuned" / "model")
    )
    assert all(torch.allclose(after[key], before[key], atol=1e-9) for key in before)
    more = replace(still, train=replace(still.train, total_samples=8))
    assert train_mm_diffusion(more, data, tmp_path / "tuned", resume=True)
    with pytest.raises(ConfigError, match="was begun from nothing"):
        train_mm_diffusion(micro_config(total_samples=20), data, first, resume=True, init="x")
