"""`soundreel train` as a user runs it, in a process of its own."""

from functools import partial

import pytest

from soundreel.cli.main import run
from soundreel.cli.train import what_is_finished
from soundreel.systems import preset_names

SMALL = """
clip: {num_frames: 4, height: 16, width: 16, sample_rate: 8000}
unet:
  num_frames: 4
  channel_mult: [1, 2]
  video_attention_factors: []
  cross_attention_factors: [2]
  cross_attention_windows: [2]
  cross_head_width: 0
train: {total_samples: 8, log_every: 4, preview_every: 0}
"""


@pytest.fixture
def soundreel(python):
    return partial(python, "-m", "soundreel")


@pytest.fixture
def train(soundreel):
    def call(config, data, out, *flags):
        where = ("--config", config, "--data", data, "--out", out)
        return soundreel("train", "mm-diffusion-tiny", *where, *flags)

    return call


def test_help_names_every_preset(capsys):
    assert run(["train"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in preset_names())


def test_flags_lie_over_the_file_and_the_file_over_the_preset(
    train, soundreel, small_dataset, tmp_path
):
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    out = tmp_path / "run"
    done = train(config, small_dataset, out, "--train.total-samples", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"model: {out / 'model'}\n"
    assert done.stderr.count("mse_video") == 1
    told = soundreel("info", out).stdout
    assert "samples seen: 4 of 4, finished" in told

    again = train(config, small_dataset, out)
    assert again.returncode == 2
    assert "--resume" in again.stderr
    assert again.stderr.count("\n") == 1

    resumed = train(config, small_dataset, out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "samples seen: 8 of 8, finished" in soundreel("info", out).stdout
    assert "unet.width: 8" in soundreel("info", out / "model").stdout


def test_a_run_starts_from_the_model_of_another(train, small_dataset, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    first = train(config, small_dataset, tmp_path / "a", "--train.total-samples", "4")
    assert first.returncode == 0, first.stderr
    model = str(tmp_path / "a" / "model")
    flags = ("--train.total-samples", "4", "--init", model)
    tuned = train(config, small_dataset, tmp_path / "b", *flags)
    assert tuned.returncode == 0, tuned.stderr
    assert f"unet starts from {model}" in tuned.stderr
    absent = train(config, small_dataset, tmp_path / "c", "--init", str(tmp_path / "none"))
    assert absent.returncode == 2
    assert "no such model folder" in absent.stderr
    assert len(absent.stderr.splitlines()) == 1
    assert not (tmp_path / "c").exists()


def test_single_stages_are_not_called_a_model(tmp_path):
    stages = ("first_stage", "autoencoder")
    told = what_is_finished(tmp_path, stages)
    assert told.startswith(f"finished in {tmp_path}: first_stage, autoencoder;")
    (tmp_path / "model").mkdir()
    assert what_is_finished(tmp_path, stages) == f"model: {tmp_path / 'model'}"


def test_a_frame_rate_can_be_given_as_a_flag(train, small_dataset, tmp_path):
    """The data set has another one, which the command says before it starts."""
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    rate = ("--clip.frame-rate", "30000/1001")
    done = train(config, small_dataset, tmp_path / "run", *rate)
    assert done.returncode == 2
    assert "30000/1001" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("unet: {cross_head_width: 64}", "unet: cross_head_width 64 is more than the"),
        ("unet: {widht: 8}", "unet.widht"),
        ("train: {learning_rate: fast}", "train.learning_rate"),
        ("unet: [1", "YAML"),
        ("clip: {num_frames: 8}", "unet.num_frames"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_key(text, named, tmp_path, capsys):
    config = tmp_path / "wrong.yaml"
    config.write_text(text)
    assert run(["train", "mm-diffusion-tiny", "--config", str(config)]) == 2
    line = capsys.readouterr().err
    assert named in line
    assert line.count("\n") == 1


MISTAKES = {
    "--out file/out": "file/out: cannot be written",
    "--out run --device cuda:9": "device 'cuda:9' does not exist here; one of cpu",
    "--out run --train.total-samples 1": "total_samples 1 is less than global_batch_size 4",
    "--out run --train.seed -1": "seed must not be negative, got -1",
    "--out run --preview.num-steps 0": "preview.num_steps must be at least 1, got 0",
    "--out run --clip.num-frames 40 --unet.num-frames 40": "the longest has 20",
}


def test_each_mistake_is_one_line_and_nothing_is_written(python, small_dataset, tmp_path):
    """All in one process of its own."""
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "file").write_text("not a folder")
    start = f"train mm-diffusion-tiny --config small.yaml --data {small_dataset}"
    lines = [f"{start} {flags}".split() for flags in MISTAKES]
    code = f"from soundreel.cli.main import run; print([run(line) for line in {lines}])"
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout == f"{[2] * len(lines)}\n"
    told = done.stderr.splitlines()
    assert len(told) == len(lines)
    for line, words in zip(told, MISTAKES.values(), strict=True):
        assert line.startswith("soundreel: ")
        assert words in line
    assert {path.name for path in tmp_path.iterdir()} == {"small.yaml", "file"}


def test_an_absent_data_set_is_one_line_and_nothing_is_written(train, tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(SMALL)
    done = train(config, tmp_path / "nowhere", tmp_path / "run")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
