"""The phase for long video starts from a model that has it, or from one of single windows."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundreel.checkpoints.lora import LoRAConfig
from soundreel.config import DataConfig
from soundreel.config_io import ConfigError
from soundreel.data.latents import PerceptualStats
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.encode import write_mkv
from soundreel.systems import load
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.folder import save_mm_ldm
from soundreel.systems.mm_ldm.generator import Generator
from soundreel.systems.mm_ldm.generator_run import LongRun
from soundreel.systems.mm_ldm.history_encoder import LongGenerator
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.settings import MMLDMSettings
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.systems.mm_ldm.training import train_mm_ldm
from soundreel.training.loop import TrainConfig

STILL = TrainConfig(
    total_samples=2, global_batch_size=1, micro_batch_size=1, learning_rate=1e-12, ema_decay=0.0,
    log_every=2, save_every=2, preview_every=0, precision="float32",
)  # fmt: skip


def run_config(**train):
    base = tiny()
    return replace(
        base,
        generator=replace(base.generator, num_axes=0, movement_axes=0),
        adversarial=replace(base.adversarial, enabled=False),
        data=DataConfig(stride=4),
        long=LongRun(enabled=True, history_depth=1, overlap=4, train=replace(STILL, **train)),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One clip of twelve frames of noise: a single pair of windows."""
    folder, rng = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    sound = (0.3 * rng.standard_normal((1, 19_200))).clip(-1, 1).astype(np.float32)
    write_mkv(folder / "0.mkv", list(frames), sound, Fraction(10), 16_000)
    options = PrepareOptions(height=32, width=32, sample_rate=16_000, min_duration_s=0.8)
    prepare_dataset(folder, folder / "set", options, num_workers=0)
    return folder / "set"


def awake(network):
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models of random weights: `single` of single windows, `long` of long video."""
    config, folder = run_config(), tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    generators = {
        "single": Generator(config.generator_model),
        "long": LongGenerator(config.long_generator),
    }
    for name, generator in generators.items():
        pipeline = MMLDMPipeline(
            clip=config.clip,
            first_stage=KLVAE(config.first_stage.model),
            autoencoder=awake(MultiModalAutoencoder(config.autoencoder.model)),
            generator=awake(generator),
            stats=PerceptualStats(config.autoencoder.model.latents),
            settings=MMLDMSettings(mel_image=config.mel_image),
        )
        save_mm_ldm(pipeline, folder / name)
    return folder


def generator_of(model):
    return load_file(model / "generator" / "model.safetensors")


def test_it_starts_from_the_generator_of_a_model_of_single_windows(data, models, tmp_path):
    out = tmp_path / "run"
    assert train_mm_ldm(run_config(), data, out, stages=["long"], init=str(models / "single"))
    after = generator_of(out / "model")
    for key, value in generator_of(models / "single").items():
        assert torch.allclose(after[f"generator.{key}"], value, atol=1e-9), key
    assert any(key.startswith("history_encoder.") for key in after)


def test_it_starts_from_all_of_a_model_that_has_learned_to_go_on(data, models, tmp_path):
    out = tmp_path / "run"
    assert train_mm_ldm(run_config(), data, out, stages=["long"], init=str(models / "long"))
    before, after = generator_of(models / "long"), generator_of(out / "model")
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.allclose(after[key], value, atol=1e-9), key


def test_an_adapter_is_of_a_model_that_has_the_phase(data, models, tmp_path):
    config = run_config(lora=LoRAConfig(rank=2), learning_rate=1e-2)
    with pytest.raises(ConfigError, match=r"adapter"):
        train_mm_ldm(config, data, tmp_path / "a", stages=["long"], init=str(models / "single"))
    out = tmp_path / "run"
    assert train_mm_ldm(config, data, out, stages=["long"], init=str(models / "long"))
    joined = load(models / "long", adapter=out / "long" / "adapter", device="cpu")
    after, before = generator_of(out / "model"), generator_of(models / "long")
    assert any(not torch.equal(after[key], value) for key, value in before.items())
    for key, value in joined.long_generator.state_dict().items():
        assert torch.allclose(value, after[key], atol=1e-6), key
