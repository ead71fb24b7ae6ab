"""The stage runner on toy stages: order, marks, stop requests, what a stage leaves."""

import os
import signal
from dataclasses import dataclass, field, replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from soundreel.config import DataConfig
from soundreel.config_io import ConfigError, load_json
from soundreel.data.dataset import Sample
from soundreel.files import FolderInUseError, locked
from soundreel.protocols import Stage
from soundreel.training.loop import TrainConfig, fit
from soundreel.training.objectives import TrainingLoss
from soundreel.training.run import StageWork
from soundreel.training.stages import Recipe, train_stages
from soundreel.training.trackers import read_log
from soundreel.types import AV


@dataclass(frozen=True, kw_only=True)
class WidthConfig:
    width: int = 4


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    first: TrainConfig
    second: TrainConfig
    data: DataConfig = field(default_factory=DataConfig)


def toy_config(**changes):
    train = TrainConfig(
        total_samples=16,
        global_batch_size=4,
        micro_batch_size=2,
        learning_rate=1e-2,
        ema_decay=0.5,
        log_every=4,
        save_every=8,
        preview_every=8,
        precision="float32",
    )
    train = replace(train, **changes)
    return ToyConfig(first=train, second=train)


class ToyWindows:
    def __len__(self):
        return 5

    def draw(self, index, generator):
        x = torch.randn(4, generator=generator) + index
        return Sample(av=AV(None, x[None]), label=-1, key=str(index), start_frame=0)


class ToyRecipe(Recipe):
    """The second stage learns to follow the first one's network."""

    def __init__(self, config, run, preview=None):
        self.config, self.run, self.preview = config, run, preview

    def begin(self, stage):
        train = getattr(self.config, stage)
        teacher = None
        if stage == "second":
            teacher = nn.Linear(4, 4)
            teacher.load_state_dict(
                load_file(self.run.component("first") / "network" / "model.safetensors")
            )

        def objective(network, batch, noise):
            x = batch.av["audio"][:, 0]
            with torch.no_grad():
                target = x.flip(-1) if teacher is None else teacher(x)
            errors = (network(x) - target - 0.01 * noise(AV(None, x))["audio"]).square()
            return TrainingLoss(errors.mean(), {"mse": (errors.detach().mean(), len(x))})

        network = self.run.seeded(lambda: nn.Linear(4, 4), train)
        return StageWork(
            trainees=[self.run.trainee(stage, network, objective, train)],
            build=lambda: nn.Linear(4, 4),
            data=ToyWindows(),
            train=train,
            preview=self.preview,
            finish=lambda network, samples: WidthConfig(),
        )

    def save_model(self):
        (self.run.out / "model").mkdir()


def run_toy(out, config=None, *, preview=None, **options):
    config = config or toy_config()
    return train_stages(
        config,
        out,
        system="toy",
        all_stages=[
            Stage(name="first", total_samples=config.first.total_samples, folder="first"),
            Stage(name="absent", total_samples=0, folder="absent"),
            Stage(name="second", total_samples=config.second.total_samples, folder="second"),
        ],
        train_configs={"first": config.first, "second": config.second},
        recipe=lambda run: ToyRecipe(config, run, preview),
        **options,
    )


def left(out, stage="second"):
    return load_file(out / stage / "component" / "network" / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def whole(tmp_path):
    assert run_toy(tmp_path / "whole")
    return tmp_path / "whole"


def kill_at(samples):
    def track(numbers):
        if numbers["samples"] == samples:
            os.kill(os.getpid(), signal.SIGINT)

    return lambda: [track]


@pytest.mark.usefixtures("process_as_before")
def test_stages_run_in_order_and_the_model_comes_last(whole):
    assert {p.name for p in whole.iterdir()} == {"config.json", "first", "second", "model"}
    assert {p.name for p in (whole / "first").iterdir()} == {
        "checkpoints",
        "component",
        "log.jsonl",
    }
    averaged = load_file(whole / "first" / "checkpoints" / "000000016" / "first.ema.safetensors")
    assert same(left(whole, "first"), averaged)


def test_ctrl_c_in_the_last_step_of_a_stage_is_not_forgotten(whole, tmp_path):
    out = tmp_path / "run"
    assert not run_toy(out, trackers=kill_at(16))
    assert (out / "first" / "component").is_dir(), "the stage itself is complete"
    assert not (out / "second").exists()
    assert run_toy(out, resume=True)
    assert same(left(out), left(whole))


def test_ctrl_c_in_the_preview_after_the_last_step_is_not_forgotten(whole, tmp_path):
    out = tmp_path / "run"

    def preview(network, samples):
        if samples == 16:
            os.kill(os.getpid(), signal.SIGTERM)

    assert not run_toy(out, preview=preview)
    assert not (out / "second").exists()
    assert run_toy(out, resume=True)
    assert same(left(out), left(whole))


def test_ctrl_c_within_a_stage_saves_and_resumes_exactly(whole, tmp_path):
    out = tmp_path / "run"
    assert not run_toy(out, trackers=kill_at(12))
    assert not (out / "first" / "component").exists()
    assert (out / "first" / "checkpoints" / "000000012").is_dir()
    assert run_toy(out, resume=True)
    assert same(left(out), left(whole))


def test_single_stages_in_turn_equal_all_at_once(whole, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="second needs first"):
        run_toy(out, stages=["second"])
    with pytest.raises(ConfigError, match="the stages first, second, not absent"):
        run_toy(out, stages=["absent"])
    assert not out.exists()
    assert run_toy(out, stages=["first"])
    assert not (out / "model").exists()
    assert run_toy(out, stages=["second"], resume=True)
    assert (out / "model").exists()
    assert same(left(out), left(whole))


def test_a_folder_in_use_is_left_alone(tmp_path):
    with locked(tmp_path / "run"), pytest.raises(FolderInUseError, match="in use by process"):
        run_toy(tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_stage_shorter_than_a_step_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError) as told:
        run_toy(tmp_path / "run", toy_config(total_samples=3))
    assert "stage first: total_samples 3 is less than global_batch_size 4" in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_rate_that_is_never_reached_is_said_once_a_stage(tmp_path, caplog):
    assert run_toy(tmp_path / "run", toy_config(warmup_samples=12, decay_samples=4))
    assert "never reaches" not in caplog.text
    assert run_toy(tmp_path / "short", toy_config(warmup_samples=12, decay_samples=8))
    assert caplog.text.count("never reaches 0.01: warmup_samples 12 and decay_samples 8") == 2


def test_every_stage_begins_with_its_place_and_what_it_will_do(tmp_path, caplog):
    with caplog.at_level("INFO", logger="soundreel"):
        assert run_toy(tmp_path / "run")
    headings = [r.message for r in caplog.records if r.message.startswith("stage ")]
    assert headings == [
        f"stage {place} of 2, {name}: 16 clips, 4 at a time, float32 on cpu"
        for place, name in ((1, "first"), (2, "second"))
    ]


def test_fewer_windows_than_a_batch_are_drawn_again_and_the_last_step_is_logged(tmp_path):
    config = toy_config(global_batch_size=8, micro_batch_size=8, log_every=1000)
    assert config.first.global_batch_size > len(ToyWindows())
    assert run_toy(tmp_path / "run", config)
    for stage in ("first", "second"):
        (line,) = read_log(tmp_path / "run" / stage / "log.jsonl")
        assert line["samples"] == 16
        assert line["time_left_s"] == 0


def test_recomputation_that_has_no_effect_is_refused(tmp_path):
    config = toy_config(checkpoint_activations=True)
    with pytest.raises(ConfigError, match="first cannot recompute its activations"):
        run_toy(tmp_path / "run", config)


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_a_run_goes_on_in_the_precision_it_began_with(tmp_path, monkeypatch, faster):
    """Wherever it goes on: what is faster there would give other numbers."""
    seen = []

    def fit_noted(trainees, batches, config, **options):
        seen.append(config.precision)
        return fit(trainees, batches, config, **options)

    def prefer(precision):
        monkeypatch.setattr(
            "soundreel.training.stages.faster_precision", lambda device: (precision, 1.0)
        )

    monkeypatch.setattr("soundreel.training.run.fit", fit_noted)
    out, config = tmp_path / "run", toy_config(precision="auto")
    prefer(faster)
    assert run_toy(out, config, stages=["first"])
    stored = load_json(ToyConfig, out / "config.json")
    assert stored.first.precision == stored.second.precision == faster
    prefer("float32" if faster == "bfloat16" else "bfloat16")
    assert run_toy(out, config, resume=True)
    assert seen == [faster, faster]
    other = toy_config(precision="float32" if faster == "bfloat16" else "bfloat16")
    with pytest.raises(ConfigError, match=r"other settings \(first.precision, second.precision;"):
        run_toy(out, other, resume=True)
