"""All stages of the tiny preset on rendered scenes, stopped, resumed, and begun from a model."""

import os
import shutil
import signal
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from soundreel import systems
from soundreel.checkpoints.adapter import Adapter
from soundreel.checkpoints.lora import LoRAConfig
from soundreel.clip import Clip
from soundreel.config_io import ConfigError
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.data.scenes.render import RenderOptions, render_clip
from soundreel.errors import SoundreelError
from soundreel.systems import load
from soundreel.systems.joint_flow import presets
from soundreel.systems.joint_flow.init_classes import Classes
from soundreel.systems.joint_flow.pipeline import JointFlowPipeline
from soundreel.systems.joint_flow.stages import spread, train_joint_flow, windows_of
from soundreel.training.state import list_checkpoints
from soundreel.training.trackers import read_log


def micro(transformer_samples=32):
    """The tiny preset, shorter still."""
    config = presets.tiny()
    short = replace(config.video.train, total_samples=8, log_every=4, save_every=8)
    stage = replace(
        config.transformer,
        train=replace(short, total_samples=transformer_samples, save_every=16, preview_every=32),
    )
    return replace(
        config,
        video=replace(config.video, train=short, fit_clips=12),
        audio=replace(config.audio, train=short),
        transformer=stage,
        data=replace(config.data, stride=8),
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Nine scenes in folders by their kind."""
    folder = tmp_path_factory.mktemp("videos")
    options = RenderOptions(
        height=32,
        width=32,
        num_frames=20,
        frame_rate=Fraction(10),
        kinds=("bells", "metronome", "rain"),
    )
    for index in range(9):
        made = render_clip(options, 0, index)
        (folder / made.kind).mkdir(exist_ok=True)
        clip = Clip(made.frames, made.waveform, Fraction(10), 16_000)
        clip.save(folder / made.kind / f"{index}.mkv")
    return folder


def prepared(videos, root, labels="folder"):
    prepare_dataset(videos, root, PrepareOptions(height=32, width=32, labels=labels))
    return root


@pytest.fixture(scope="module")
def data(videos, tmp_path_factory):
    return prepared(videos, tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture(scope="module")
def other(videos, tmp_path_factory):
    """The scenes without classes, and two kinds of them, one under a new name."""
    root = tmp_path_factory.mktemp("other")
    shutil.copytree(videos / "bells", root / "videos" / "noise")
    shutil.copytree(videos / "rain", root / "videos" / "rain")
    return {
        "none": prepared(videos, root / "none", "none"),
        "others": prepared(root / "videos", root / "others"),
    }


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train_joint_flow(micro(), data, out)
    return out


def weights(out, stage):
    newest = list_checkpoints(out / stage / "checkpoints")[-1]
    return {p.name: load_file(p) for p in sorted(newest.glob("*.safetensors"))}


def stop_at(samples):
    """A tracker that asks the run politely to stop."""

    def track(numbers):
        if numbers["samples"] == samples and "transformer/video" in numbers:
            os.kill(os.getpid(), signal.SIGTERM)

    return lambda: [track]


def test_a_run_leaves_a_model_that_the_registry_opens(run):
    pipeline = systems.load(run / "model")
    assert isinstance(pipeline, JointFlowPipeline)
    assert pipeline.class_names == ("bells", "metronome", "rain")
    assert pipeline.settings.samples_seen == 32
    averaged = weights(run, "transformer")["transformer.ema.safetensors"]
    for name, value in pipeline.transformer.state_dict().items():
        assert torch.equal(value, averaged[name]), name
    (clip,) = pipeline.generate(label="rain", num_steps=1)
    assert clip.num_frames == 8


def test_each_stage_logs_its_numbers_and_the_last_one_its_watch(run):
    wanted = {
        "video_codec": {"video_codec/error", "video_codec/psnr_db"},
        "audio_codec": {"audio_codec/distance", "audio_codec/between_decodings"},
        "transformer": {"transformer/video", "transformer/audio"},
    }
    for stage, names in wanted.items():
        lines = read_log(run / stage / "log.jsonl")
        assert all(names <= line.keys() for line in lines), [sorted(line) for line in lines]
    (line,) = read_log(run / "transformer" / "watch.jsonl")
    assert line["samples"] == 32
    assert line["gap/audio_error"] > 0
    assert (run / "transformer" / "previews" / "000000032.png").is_file()


def test_scales_are_measured_on_the_latents(run, data):
    pipeline = systems.load(run / "model")
    shards = load_file(run / "latents" / "latents-000000.safetensors")
    audio = shards["audio"].float()
    scaled = (audio - pipeline.transformer.audio_mean) / pipeline.transformer.audio_std
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-3)
    assert float(scaled.var(correction=0)) == pytest.approx(1, abs=1e-3)
    video = shards["video"].float()
    for modality, x in (("video", video), ("audio", audio)):
        centred = x - x.mean((0, 1))
        before, after = centred[:, :-1], centred[:, 1:]
        seen = (before * after).mean((0, 1)) / centred.square().mean((0, 1))
        kept = getattr(pipeline.transformer.correlation, modality)
        assert torch.allclose(kept, seen.clamp(0, 0.98), atol=0.02)
    label = shards["label"]
    network = pipeline.transformer
    for modality, x in (("video", video), ("audio", scaled)):
        mean, deviation = (
            network.get_buffer(f"{modality}_class_{n}") for n in ("mean", "deviation")
        )
        assert torch.allclose(mean[-1], x.mean((0, 1)), atol=1e-3)
        spread = (x - x.mean((0, 1))).square().mean((0, 1)).sqrt()
        assert torch.allclose(deviation[-1], spread.clamp(min=0.02), atol=1e-3)
        for number in label.unique().tolist():
            of_class = x[label == number]
            own = len(of_class) / (len(of_class) + 32)  # 32 average windows count too
            assert torch.allclose(
                mean[number], own * of_class.mean((0, 1)) + (1 - own) * x.mean((0, 1)), atol=1e-3
            )
    # Every window is there twice, the second time mirrored.
    assert torch.equal(audio[::2], audio[1::2])
    assert not torch.equal(video[::2], video[1::2])


def test_a_run_that_is_stopped_and_resumed_equals_an_uninterrupted_one(run, data, tmp_path):
    out = tmp_path / "run"
    assert not train_joint_flow(micro(), data, out, trackers=stop_at(16))
    assert not (out / "model").exists()
    assert train_joint_flow(micro(), data, out, resume=True)
    for stage in ("video_codec", "audio_codec", "transformer"):
        expected, got = weights(run, stage), weights(out, stage)
        assert expected.keys() == got.keys()
        for name, tensors in expected.items():
            assert all(torch.equal(v, got[name][k]) for k, v in tensors.items()), name


def test_another_transformer_starts_from_a_model_and_keeps_its_codecs(run, data, tmp_path):
    out = tmp_path / "run"
    assert train_joint_flow(micro(8), data, out, stages=["transformer"], init=str(run / "model"))
    before, after = (
        load_file(folder / "video_codec/component/network/model.safetensors")
        for folder in (run, out)
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    first = weights(out, "transformer")["transformer.safetensors"]["tokens_in.video.weight"]
    old = load_file(run / "model" / "transformer" / "model.safetensors")["tokens_in.video.weight"]
    assert (first - old).abs().max() < 0.05  # a few steps away


def test_an_audio_decoder_is_trained_on_behind_an_encoder_that_stays(run, data, tmp_path):
    config, out = micro(), tmp_path / "run"
    config = replace(config, audio=replace(config.audio, train_encoder=False))
    model = str(run / "model")
    assert train_joint_flow(config, data, out, stages=["audio_codec"], init=model)
    before, after = (
        load_file(folder / "audio_codec/component/network/model.safetensors")
        for folder in (run, out)
    )
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith("encoder."), name


def test_an_encoder_that_stays_must_come_from_somewhere(data, tmp_path):
    config = micro()
    config = replace(config, audio=replace(config.audio, train_encoder=False))
    with pytest.raises(ConfigError, match=r"audio\.train_encoder: set it to True, or name a model"):
        train_joint_flow(config, data, tmp_path / "run")


def test_an_encoder_that_stays_has_no_adapters():
    stage = micro().audio
    adapted = replace(stage.train, lora=LoRAConfig(rank=2))
    with pytest.raises(SoundreelError, match=r"audio\.train_encoder must be True where"):
        replace(stage, train=adapted, train_encoder=False)


def adapted_by(data, out, model):
    """Train an adapter of the model's transformer on a data set; return its folder."""
    config = micro()
    stage = config.transformer
    lora = replace(stage.train, lora=LoRAConfig(rank=2))
    config = replace(config, transformer=replace(stage, train=lora))
    assert train_joint_flow(config, data, out, stages=["transformer"], init=str(model))
    return out / "transformer" / "adapter"


@pytest.mark.parametrize("labels", ["same", "none", "others"])
def test_an_adapter_and_its_model_are_the_model_that_was_trained(
    labels, run, data, other, tmp_path, caplog
):
    """Scales and classes, which an adapter does not hold, stay the model's on any data."""
    caplog.set_level("INFO")
    model = run / "model"
    folder = adapted_by({"same": data, **other}[labels], tmp_path / "run", model)
    assert all(b.any() for _, b in Adapter.read(folder).products.values())
    joined = load(model, adapter=folder, device="cpu")
    merged = load(tmp_path / "run" / "model", device="cpu")
    assert joined.class_names == merged.class_names == ("bells", "metronome", "rain")
    expected = merged.transformer.state_dict()
    for name, value in joined.transformer.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    said = "classes that the model does not know are trained as any: noise"
    assert (said in caplog.text) == (labels == "others")


@pytest.mark.parametrize("labels", ["none", "others"])
def test_a_transformer_starts_from_a_model_of_other_classes(labels, run, other, tmp_path, caplog):
    caplog.set_level("INFO")
    model = str(run / "model")
    out = tmp_path / "run"
    assert train_joint_flow(micro(8), other[labels], out, stages=["transformer"], init=model)
    names = load(out / "model").class_names
    assert names == {"none": (), "others": ("noise", "rain")}[labels]
    said = "classes that the model does not know start as any: noise"
    assert (said in caplog.text) == (labels == "others")
    assert "left as initialised" not in caplog.text
    old = load(model).transformer.get_parameter("classes.weight")
    new = weights(out, "transformer")["transformer.safetensors"]["classes.weight"]
    rows = {"none": [3], "others": [3, 2, 3]}[labels]
    assert (new - old[rows]).abs().max() < 0.02  # two steps away


def test_classes_of_an_earlier_model_are_found_by_name():
    state = {"classes.weight": torch.arange(3.0)[:, None], "tokens_in.weight": torch.ones(5)}
    found = Classes(names=("c", "b"), labels=(0, 1), known=("a", "b")).convert(state)
    assert found["classes.weight"].flatten().tolist() == [2.0, 1.0, 2.0]
    assert found["tokens_in.weight"] is state["tokens_in.weight"]


def test_nothing_but_products_is_left_to_an_adapter(run, data, tmp_path):
    config = micro()
    sizes = replace(config.transformer.sizes, hidden=80)
    lora = replace(config.transformer.train, lora=LoRAConfig(rank=2))
    config = replace(config, transformer=replace(config.transformer, sizes=sizes, train=lora))
    with pytest.raises(ConfigError, match=r"shape: blocks\.0\.widen.*adapter"):
        train_joint_flow(
            config, data, tmp_path / "run", stages=["transformer"], init=str(run / "model")
        )


def test_a_stage_without_its_predecessor_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(ConfigError, match="needs video_codec"):
        train_joint_flow(micro(), data, tmp_path / "run", stages=["transformer"])
    assert not (tmp_path / "run").exists()


def test_epochs_are_windows_of_each_stage(data, tmp_path):
    config = micro()
    counts = {stage: len(windows) for stage, windows in windows_of(config, data).items()}
    assert counts["audio_codec"] > counts["transformer"] > 0
    train = replace(config.audio.train, total_samples=0, epochs=2.0, global_batch_size=1000)
    config = replace(config, audio=replace(config.audio, train=train))
    said = f"stage audio_codec: total_samples {2 * counts['audio_codec']} is less"
    with pytest.raises(ConfigError, match=said):
        train_joint_flow(config, data, tmp_path / "run")


def test_a_picture_that_never_changes_ends_in_one_line(tmp_path):
    """The linear codec has no directions to fit: said by the stage, with what to do."""
    (tmp_path / "videos").mkdir()
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 32_000)).astype(np.float32)
    grey = np.full((20, 32, 32, 3), 100, np.uint8)
    Clip(grey, sound, Fraction(10), 16_000).save(tmp_path / "videos" / "still.mkv")
    prepare_dataset(tmp_path / "videos", tmp_path / "data", PrepareOptions(height=32, width=32))
    with pytest.raises(SoundreelError) as told:
        train_joint_flow(micro(), tmp_path / "data", tmp_path / "run", stages=["video_codec"])
    assert "train on more clips" in str(told.value)
    assert "\n" not in str(told.value)


def test_spread_indices_reach_from_the_first_to_the_last():
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(3, 8) == [0, 1, 2]
