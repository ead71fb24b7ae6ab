"""Every stage of every system on two processes against one: the same losses and weights.

Compared are the logged losses of all steps, relative to their size, and the averaged weights that
each stage leaves. Batches of two clips are put together in one process, and shared by two; each
process has one thread, so that both add up in the same order.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from safetensors.torch import load_file

from soundreel.clip import Clip
from soundreel.config import DataConfig
from soundreel.config_io import ConfigError, config_from_json, config_to_json, save_json
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.systems import system
from soundreel.systems.joint_flow import presets
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNetConfig
from soundreel.systems.mm_ldm.config import MMLDMConfig
from soundreel.systems.mm_ldm.generator_run import LongRun
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.systems.mm_ldm.training import train_mm_ldm
from soundreel.systems.super_resolution.config import SuperResolutionRunConfig
from soundreel.systems.super_resolution.degradation import DegradationConfig
from soundreel.systems.super_resolution.network import SuperResolutionConfig
from soundreel.training.loop import TrainConfig
from soundreel.training.trackers import read_log
from soundreel.types import ClipSpec

SIZE = 32
NUM_FRAMES = 16
SCRIPT = """
import sys
from pathlib import Path
import torch.distributed
from soundreel.config_io import load_json
from soundreel.systems import system

own = system(sys.argv[1])
config, data, out, *stages = map(Path, sys.argv[2:])
settings = load_json(own.config_type, config)
assert own.train(settings, data, out, stages=[str(stage) for stage in stages])
assert not torch.distributed.is_initialized(), "the process may abort as it ends"
"""
TRAIN = TrainConfig(
    total_samples=8,
    global_batch_size=4,
    micro_batch_size=2,
    learning_rate=1e-3,
    ema_decay=0.5,
    log_every=4,
    save_every=1000,
    preview_every=0,
    precision="float32",
    num_threads=1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Squares that move while their tones rise, in two classes."""
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        frames = np.zeros((NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
        for index in range(NUM_FRAMES):
            left = index + number
            frames[index, 8:20, left : left + 8] = (200, 60 * number, 90)
        times = np.arange(1_600 * NUM_FRAMES) / 16_000
        tone = 0.4 * np.sin(2 * np.pi * (200 + 150 * number + 400 * times) * times)
        target = folder / f"class{number % 2}" / f"{number}.mkv"
        target.parent.mkdir(exist_ok=True)
        Clip(frames, tone.astype(np.float32)[None], Fraction(10), 16_000).save(target)
    root = tmp_path_factory.mktemp("prepared") / "data"
    options = PrepareOptions(
        height=SIZE, width=SIZE, sample_rate=16_000, min_duration_s=0.8, labels="folder"
    )
    prepare_dataset(folder, root, options)
    return root


def mm_diffusion(train):
    return MMDiffusionConfig(
        clip=ClipSpec(num_frames=4, height=SIZE, width=SIZE, sample_rate=16_000),
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
        ),
        data=DataConfig(flip_probability=0.5),
        train=train,
    )


def super_resolution(train):
    return SuperResolutionRunConfig(
        network=SuperResolutionConfig(
            low_res_size=8,
            size=SIZE,
            width=8,
            channel_mult=(1, 2),
            num_res_blocks=1,
            attention_factors=(),
            num_groups=8,
        ),
        degradation=DegradationConfig(low_res_size=8),
        train=train,
    )


def mm_ldm(train):
    """With an adversary from the first step on, cached latents and a class head."""
    base = tiny()
    values = config_to_json(base)
    values["autoencoder"]["model"]["decoder"]["num_classes"] = 2
    base = config_from_json(MMLDMConfig, values, "test")
    first = base.first_stage
    return replace(
        base,
        first_stage=replace(
            first,
            train=replace(train, sharding=False),  # excludes an adversary there
            adversary=True,
            loss=replace(first.loss, adversarial_start=0),
        ),
        autoencoder=replace(base.autoencoder, train=train, cache_first_stage=True),
        adversarial=replace(base.adversarial, train=train, enabled=True),
        generator=replace(base.generator, train=train),
        long=LongRun(enabled=True, history_depth=1, overlap=4, train=train),
        data=DataConfig(stride=1),
    )


def joint_flow(train):
    base = presets.tiny()
    return replace(
        base,
        video=replace(base.video, train=train, fit_clips=4),
        audio=replace(base.audio, train=train),
        transformer=replace(base.transformer, train=train),
    )


SYSTEMS = {
    "mm-diffusion": (mm_diffusion, {"unet": ""}),
    "mm-diffusion-sr": (super_resolution, {"super_resolution": ""}),
    "mm-ldm": (
        mm_ldm,
        {
            name: name
            for name in (*("first_stage", "autoencoder", "adversarial", "generator", "long"),)
        },
    ),
    "joint-flow": (
        joint_flow,
        {name: name for name in ("video_codec", "audio_codec", "transformer")},
    ),
}


@pytest.fixture
def trained_by_two(python):
    def call(name, config, data, out, stages=()):
        save_json(config, out.with_suffix(".json"))
        words = (name, out.with_suffix(".json"), data, out, *stages)
        return python("-c", SCRIPT, *words, processes=2)

    return call


def losses(out, folder):
    log = read_log(out / folder / "log.jsonl")
    return [{k: v for k, v in line.items() if "/" in k} for line in log]


def largest_difference(one, two):
    """Of losses, relative to their size; gradients' norms and ratios of them are no losses."""
    assert len(one) == len(two) > 1
    worst = 0.0
    for line, other in zip(one, two, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if not name.endswith(("grad_norm", "adversarial_balance")):
                worst = max(worst, abs(other[name] - value) / max(abs(value), 1e-3))
    return worst


def left(out, folder, stage):
    """Return the averaged weights that a stage has left for others to load."""
    component = out / folder / "component" / "network"
    return load_file((component if folder else out / "model" / stage) / "model.safetensors")


@pytest.fixture
def compare(trained_by_two, data, tmp_path):
    """By stage the largest difference of losses, and of averaged weights."""

    def call(name, train, stages=(), *, sharding=False):
        make, folders = SYSTEMS[name]
        assert system(name).train(make(train), data, tmp_path / "one", stages=stages)
        config = make(replace(train, sharding=sharding))
        done = trained_by_two(name, config, data, tmp_path / "two", stages)
        assert done.returncode == 0, done.stderr
        found = {}
        for stage, folder in folders.items():
            if stages and stage not in stages:
                continue
            one, two = tmp_path / "one" / folder, tmp_path / "two" / folder
            shards = list((two / f"checkpoints/{train.total_samples:09d}").glob("shard-*"))
            assert len(shards) == 2 * (sharding and stage != "first_stage")
            first, second = (left(tmp_path / run, folder, stage) for run in ("one", "two"))
            assert first.keys() == second.keys()
            weights = max(float((first[key] - second[key]).abs().max()) for key in first)
            found[stage] = (largest_difference(losses(one, ""), losses(two, "")), weights)
        return found

    return call


@pytest.mark.parametrize("name", ["mm-diffusion", "mm-diffusion-sr", "joint-flow"])
def test_two_processes_lose_what_one_loses(name, compare):
    for stage, (loss, weights) in compare(name, TRAIN).items():
        assert loss <= 1e-5, stage
        assert weights <= 2e-4, stage


def test_two_processes_compare_the_clips_of_the_whole_batch(compare):
    """MM-LDM's first two stages: an adversary weighed by gradients, and the contrastive loss.

    Rounding turns the sign of a gradient near zero, which is all that AdamW's first step keeps of
    it: at a rate of 1e-3 that is up to 3e-3 of the adversary's next loss.
    """
    stages = ("first_stage", "autoencoder")
    train = replace(TRAIN, learning_rate=1e-5)
    for stage, (loss, _) in compare("mm-ldm", train, stages).items():
        assert loss <= 1e-5, stage


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_twenty_steps_of_every_stage(name, compare):
    """Prints the table of the documentation with `-s`.

    At a rate of 1e-3 single-precision rounding grows to 1e-2 of the contrastive loss, whose
    features are compared at a temperature of 0.07.
    """
    train = replace(TRAIN, total_samples=80, learning_rate=1e-4)
    for stage, (loss, weights) in compare(name, train).items():
        print(f"| {name} | {stage} | {loss:.1e} | {weights:.1e} |")
        assert loss <= 1e-5, stage


def test_what_does_not_divide_is_refused_before_anything_is_written(trained_by_two, data, tmp_path):
    train = replace(TRAIN, micro_batch_size=4)
    done = trained_by_two("mm-diffusion", mm_diffusion(train), data, tmp_path / "run")
    assert done.returncode != 0
    assert "times 2 processes" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_divided_first_stage_has_no_adversary(data, tmp_path):
    config = mm_ldm(TRAIN)
    first = replace(config.first_stage, train=replace(TRAIN, sharding=True))
    with pytest.raises(ConfigError, match=r"set first_stage\.train\.sharding or first"):
        train_mm_ldm(replace(config, first_stage=first), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_stage_divided_among_two(name, compare):
    """With `train.sharding`: what a stage leaves is an ordinary network."""
    train = replace(TRAIN, learning_rate=1e-4)
    for stage, (loss, weights) in compare(name, train, sharding=True).items():
        print(f"| {name} | {stage} | {loss:.1e} | {weights:.1e} |")
        assert loss <= 1e-5, stage
        assert weights <= 1e-3, stage
