"""The super-resolution objective, its presets, and a run from data set to model folder."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from soundreel.checkpoints.adapter import Adapter
from soundreel.checkpoints.lora import LoRAConfig
from soundreel.checkpoints.store import read_model
from soundreel.clip import Clip
from soundreel.config import DataConfig, PreviewConfig
from soundreel.config_io import ConfigError, config_from_json, config_to_json
from soundreel.data.loader import Batch
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.diffusion.schedules import linear_schedule
from soundreel.systems import load_upscaler
from soundreel.systems.super_resolution import presets as super_resolution_presets
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.degradation import DegradationConfig, ImagePairs
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
)
from soundreel.systems.super_resolution.objective import SuperResolutionObjective
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline
from soundreel.systems.super_resolution.training import train_super_resolution
from soundreel.training.loop import TrainConfig
from soundreel.types import AV

NETWORK = SuperResolutionConfig(
    low_res_size=8,
    size=32,
    width=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_factors=(),
    num_groups=8,
)


def run_config(**train):
    settings = {
        "total_samples": 16,
        "global_batch_size": 4,
        "micro_batch_size": 2,
        "log_every": 8,
        "save_every": 8,
        "preview_every": 16,
        "learning_rate": 1e-3,
        "ema_decay": 0.5,
        "precision": "float32",
    }
    return SuperResolutionRunConfig(
        network=NETWORK,
        degradation=DegradationConfig(low_res_size=8),
        data=DataConfig(flip_probability=0.5),
        train=TrainConfig(**(settings | train)),
        preview=PreviewConfig(count=2, num_steps=2),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared data set of three short clips of a moving square, 32 pixels wide."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        frames = np.full((6, 32, 32, 3), 40 * number, dtype=np.uint8)
        for index, frame in enumerate(frames):
            frame[8 + index : 16 + index, 4:20] = (200, 90, 30)
        sound = np.random.default_rng(number).uniform(-0.5, 0.5, (1, 9600)).astype(np.float32)
        Clip(frames, sound, Fraction(10), 16_000).save(folder / f"{number}.mkv")
    root = tmp_path_factory.mktemp("prepared") / "data"
    options = PrepareOptions(
        height=32, width=32, min_duration_s=0.1, clip_duration_s=1.0, valid=1.0
    )
    prepare_dataset(folder, root, options, num_workers=1)
    return root


def weights(out):
    network = SuperResolutionPipeline.load(read_model(out / "model")).network
    return torch.cat([p.flatten() for p in network.parameters()])


@pytest.mark.usefixtures("process_as_before")
def test_a_run_leaves_a_model_a_log_and_previews_and_resumes_exactly(tmp_path, data):
    assert train_super_resolution(run_config(), data, tmp_path / "whole")
    lines = [json.loads(x) for x in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines] == [8, 16]
    assert {"super_resolution/mse_video", "super_resolution/vb_video"} <= lines[-1].keys()
    assert (tmp_path / "whole" / "previews" / "000000016.mkv").stat().st_size > 0
    (line,) = (tmp_path / "whole" / "previews" / "psnr.jsonl").read_text().splitlines()
    assert json.loads(line)["bicubic_psnr_db"] > 15

    assert train_super_resolution(run_config(total_samples=8), data, tmp_path / "halves")
    train_super_resolution(run_config(), data, tmp_path / "halves", resume=True)
    assert torch.equal(weights(tmp_path / "halves"), weights(tmp_path / "whole"))


def test_an_adapter_of_the_enlarging_network_is_trained_and_loaded(tmp_path, data):
    config = run_config(total_samples=4, preview_every=0)
    assert train_super_resolution(config, data, tmp_path / "first")
    model = str(tmp_path / "first" / "model")
    lora = LoRAConfig(rank=1, targets="all")
    tuned = replace(config, train=replace(config.train, lora=lora, total_samples=16))
    assert train_super_resolution(tuned, data, tmp_path / "tuned", init=model)
    adapter = tmp_path / "tuned" / "adapter"
    assert all(b.any() for _, b in Adapter.read(adapter).products.values())
    joined = load_upscaler(model, adapter=adapter, device="cpu").network.state_dict()
    merged = load_upscaler(tmp_path / "tuned" / "model", device="cpu").network.state_dict()
    assert all(torch.allclose(joined[key], merged[key], atol=1e-6) for key in merged)


def test_a_run_is_not_mixed_with_another(tmp_path, data):
    train_super_resolution(run_config(total_samples=4), data, tmp_path / "run")
    with pytest.raises(ConfigError, match="holds a run already"):
        train_super_resolution(run_config(), data, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"other settings \(train.learning_rate;"):
        train_super_resolution(run_config(learning_rate=2e-3), data, tmp_path / "run", resume=True)


def test_epochs_are_frames_of_the_data_set(tmp_path, data):
    config = run_config(total_samples=0, epochs=2.0, global_batch_size=100)
    with pytest.raises(ConfigError, match=r"stage super_resolution: total_samples 24 is less"):
        train_super_resolution(config, data, tmp_path / "run")


def test_a_data_set_of_another_size_is_named(tmp_path, data):
    config = replace(run_config(), network=replace(NETWORK, size=64))
    with pytest.raises(ValueError, match="frames of 32x32, the network learns to make 64x64"):
        train_super_resolution(config, data, tmp_path / "run")


def overfit_batch():
    generator = torch.Generator().manual_seed(0)
    low_res = torch.rand(4, 3, 8, 8, generator=generator) * 2 - 1
    images = torch.nn.functional.interpolate(low_res, scale_factor=4.0, mode="nearest")
    return ImagePairs(
        av=AV(images, None),
        low_res=low_res,
        label=torch.full((4,), -1),
        keys=("a",) * 4,
        sample_index=0,
    )


def overfit(network, objective, batch, num_steps=80):
    """Mean squared errors on the way."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for step in range(num_steps):
        result = objective(network, batch, PerSampleNoise(range(4 * step, 4 * step + 4)))
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        losses.append(result.means["mse_video"][0])
    return losses


@pytest.mark.parametrize(
    ("prediction_type", "rest"), [pytest.param("epsilon", 0.4, marks=pytest.mark.slow), ("v", 0.75)]
)
def test_a_few_steps_learn_to_use_the_small_image(prediction_type, rest):
    batch = overfit_batch()
    torch.manual_seed(0)
    network = SuperResolutionUNet(NETWORK)
    objective = SuperResolutionObjective(linear_schedule(), prediction_type=prediction_type)
    losses = overfit(network, objective, batch)
    assert sum(losses[-20:]) < rest * sum(losses[:20])

    flipped = replace(batch, low_res=batch.low_res.flip(0))
    noise = [PerSampleNoise(range(1000, 1004)) for _ in range(2)]
    with torch.no_grad():
        right, wrong = (
            objective(network, pairs, source).means["mse_video"][0]
            for pairs, source in zip((batch, flipped), noise, strict=True)
        )
    assert right < 0.8 * wrong


def test_differences_from_the_enlargement_are_learned():
    batch = overfit_batch()
    torch.manual_seed(0)
    config = replace(NETWORK, prediction_type="v", residual_scale=3.0, learned_variance=False)
    objective = SuperResolutionObjective(
        linear_schedule(), prediction_type="v", residual_scale=3.0, learned_variance=False
    )
    losses = overfit(SuperResolutionUNet(config), objective, batch)
    assert sum(losses[-20:]) < 0.75 * sum(losses[:20])


def test_the_objective_counts_both_terms_and_refuses_other_batches():
    batch = overfit_batch()
    network = SuperResolutionUNet(NETWORK)
    result = SuperResolutionObjective(linear_schedule())(network, batch, PerSampleNoise(range(4)))
    total = sum(float(result.means[name][0]) for name in ("mse_video", "vb_video"))
    assert float(result.loss.detach()) == pytest.approx(total, rel=1e-5)
    windows = Batch(
        av=batch.av, label=batch.label, keys=batch.keys, start_frames=(0,) * 4, sample_index=0
    )
    with pytest.raises(TypeError, match="learns from image pairs"):
        SuperResolutionObjective(linear_schedule())(network, windows, PerSampleNoise(range(4)))


def test_presets_have_the_stated_sizes_and_survive_plain_values():
    counts = {}
    for preset in (super_resolution_presets.super_resolution, super_resolution_presets.small):
        config = preset()
        assert config_from_json(SuperResolutionRunConfig, config_to_json(config), "here") == config
        with torch.device("meta"):
            network = SuperResolutionUNet(config.network)
        counts[preset.__name__] = sum(p.numel() for p in network.parameters())
    assert counts["super_resolution"] == 311_027_910
    assert 2.9e6 < counts["small"] < 3.1e6


def test_network_and_degradation_must_agree():
    with pytest.raises(ValueError, match=r"network.low_res_size 8 must equal"):
        SuperResolutionRunConfig(network=NETWORK)
