"""Captions, classes, black bars and a vocoder, from a prepared data set to the finished model."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soundreel.checkpoints.errors import CheckpointError
from soundreel.cli.main import run as command
from soundreel.config import DataConfig
from soundreel.config_io import ConfigError, save_json
from soundreel.data.captions import verify_states
from soundreel.data.manifest import DatasetInfo
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.encode import write_mkv
from soundreel.systems import load
from soundreel.systems.mm_ldm.conditions import (
    RunCaptions,
    check_classes,
    framing_of,
    load_vocoder,
    with_data_classes,
)
from soundreel.systems.mm_ldm.presets import landscape
from soundreel.systems.mm_ldm.small_presets import small
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.systems.mm_ldm.training import train_mm_ldm
from soundreel.systems.mm_ldm.vocoder import Vocoder, VocoderConfig
from soundreel.training.loop import TrainConfig
from soundreel.training.run_folder import check_out

WIDE = (32, 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One wide clip of each of two classes, prepared with black bars."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("dog", "fire")):
        frames = np.full((9, *WIDE, 3), 60 + 100 * number, dtype=np.uint8)
        frames[:, :, 8 : 16 + 8 * number] = 220
        times = np.arange(14_400) / 16_000
        tone = (0.4 * np.sin(2 * np.pi * (200 + 300 * number) * times)).astype(np.float32)
        (folder / name).mkdir()
        write_mkv(folder / name / "0.mkv", list(frames), tone[None], Fraction(10), 16_000)
    options = PrepareOptions(
        height=32,
        width=32,
        sample_rate=16_000,
        min_duration_s=0.8,
        crop="letterbox",
        labels="folder",
    )
    target = tmp_path_factory.mktemp("prepared") / "set"
    prepare_dataset(folder, target, options, num_workers=0)
    return target


@pytest.fixture
def vocoder(tmp_path):
    """A HiFi-GAN for the bands of `tiny`, with random weights, as a folder of published layout."""
    sizes = VocoderConfig(
        num_mels=40, width=16, upsample_rates=(8, 8, 4), upsample_kernel_sizes=(16, 16, 8)
    )
    folder = tmp_path / "hifigan"
    folder.mkdir()
    save_file(Vocoder(sizes).state_dict(), folder / "generator.safetensors")
    published = {
        "resblock": "1",
        "num_mels": 40,
        "upsample_rates": [8, 8, 4],
        "upsample_kernel_sizes": [16, 16, 8],
        "upsample_initial_channel": 16,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "sampling_rate": 22_050,
        "n_fft": 1024,
        "hop_size": 256,
        "fmin": 0,
        "fmax": 8000,
    }
    (folder / "config.json").write_text(json.dumps(published))
    return folder


def conditional_run(text_encoders, **changes):
    """A few steps of every stage, with classes in both networks and captions in the generator.

    What z_a has beyond its image comes to life only after the layers that begin as zero behind it.
    """
    base = tiny()
    train = TrainConfig(
        total_samples=4,
        global_batch_size=2,
        micro_batch_size=2,
        learning_rate=1e-3,
        ema_decay=0.5,
        log_every=2,
        save_every=4,
        preview_every=0,
    )
    model = base.autoencoder.model
    labelled = replace(model, decoder=replace(model.decoder, num_classes=2))
    return replace(
        base,
        first_stage=replace(base.first_stage, adversary=False, train=train),
        autoencoder=replace(
            base.autoencoder, model=labelled, train=replace(train, total_samples=12)
        ),
        adversarial=replace(base.adversarial, enabled=False),
        generator=replace(
            base.generator,
            model=replace(base.generator.model, context_dim=8, num_classes=2),
            train=replace(train, preview_every=4),
        ),
        decoding=replace(base.decoding, num_steps=2),
        sampling=replace(base.sampling, num_steps=2, video_guidance_scale=2.0),
        data=DataConfig(stride=1),
        preview=replace(base.preview, count=2),
        text=replace(base.text, folder=str(text_encoders / "clip"), num_tokens=6),
        **changes,
    )


@pytest.mark.slow
def test_captions_classes_bars_and_vocoder_end_in_the_model(
    text_encoders, data, vocoder, tmp_path, capsys
):
    config, out = conditional_run(text_encoders, vocoder=str(vocoder)), tmp_path / "run"
    assert train_mm_ldm(config, data, out)
    assert verify_states(out / "captions") == 2
    assert (out / "generator" / "previews" / "000000004.png").is_file()
    pipe = load(out / "model")
    assert (
        pipe.settings.text.sha256 == json.loads((out / "config.json").read_text())["text"]["sha256"]
    )
    assert pipe.settings.class_names == ("dog", "fire")
    assert pipe.settings.framing == "letterbox"
    assert pipe.vocoder is not None
    assert pipe.vocoder.config.sample_rate == 22_050
    flags = ["--count", "1", "--lossless", "--text", "a dog", "--class", "fire"]
    assert command(["generate", str(out / "model"), "--out", str(tmp_path / "clips"), *flags]) == 0
    assert (tmp_path / "clips" / "clip-0000.mkv").is_file()
    capsys.readouterr()
    for flags, message in (
        (["--class", "cat"], "class 'cat' is none of this model's: dog, fire"),
        (["--text", "a dog", "--text-encoder", str(text_encoders / "t5")], "another text encoder"),
    ):
        arguments = ["generate", str(out / "model"), "--out", str(tmp_path / "no"), *flags]
        assert command(arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (tmp_path / "no").exists()
    # The vocoder may be exchanged when all is trained; without one it is Griffin-Lim.
    assert train_mm_ldm(replace(config, vocoder=""), data, out, resume=True)
    assert load(out / "model").vocoder is None
    other = replace(config, text=replace(config.text, folder=str(text_encoders / "t5")))
    with pytest.raises(ConfigError, match=r"\(text\.sha256;"):
        train_mm_ldm(other, data, out, resume=True)


def test_a_run_begun_before_there_were_captions_and_vocoders_goes_on(tmp_path):
    config = tiny()
    save_json(config, tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    for name in ("text", "captions", "vocoder", "checksum"):
        values.pop(name)
    (tmp_path / "config.json").write_text(json.dumps(values))
    check_out(config, tmp_path, resume=True)
    check_out(replace(config, vocoder="any.safetensors"), tmp_path, resume=True)


def test_states_of_another_width_are_refused_before_anything_is_written(
    text_encoders, data, tmp_path
):
    config = conditional_run(text_encoders)
    model = replace(config.generator.model, context_dim=32)
    wrong = replace(config, generator=replace(config.generator, model=model))
    with pytest.raises(ConfigError, match=r"have 8 numbers a token.*context_dim=8"):
        train_mm_ldm(wrong, data, tmp_path / "run")
    missing = replace(config, text=replace(config.text, folder=str(tmp_path)))
    with pytest.raises(CheckpointError, match="no text encoder here"):
        train_mm_ldm(missing, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_captions_may_come_from_a_list(text_encoders, data, tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text("source,caption\ndog/0.mkv,a dog\n")
    config = conditional_run(text_encoders, captions=str(path))
    states = RunCaptions(config, data).states(tmp_path / "states", torch.device("cpu"))
    assert states.distinct == ["a dog"]
    with pytest.raises(ValueError, match=r"set text\.folder too"):
        replace(config, text=replace(config.text, folder=""))


def test_more_classes_than_a_network_knows_are_refused(text_encoders, data):
    config = conditional_run(text_encoders)
    info = DatasetInfo.load(data)
    check_classes(config, info)
    with pytest.raises(ConfigError, match=r"decoder\.num_classes is 2, but the data set has 3"):
        check_classes(config, replace(info, classes=("a", "b", "c")))
    check_classes(tiny(), replace(info, classes=("a", "b", "c")))


def test_given_clips_are_framed_as_the_data_set(data):
    info = DatasetInfo.load(data)
    assert framing_of(info) == "letterbox"
    assert framing_of(replace(info, options={"crop": "box"})) == "center"


def test_a_vocoder_is_read_at_the_start_and_must_fit(vocoder, tmp_path):
    config = replace(tiny(), vocoder=str(vocoder))
    made = load_vocoder(config)
    assert made is not None
    assert made.config.hop_length == 256
    assert load_vocoder(tiny()) is None
    published = json.loads((vocoder / "config.json").read_text())
    for name, value, message in (
        ("fmax", None, r"vocoder\.max_hz is 11025\.0, the mel image's is 8000\.0"),
        ("sampling_rate", 44_100, r"vocoder\.sample_rate is 44100, the mel image's is 22050"),
    ):
        (vocoder / "config.json").write_text(json.dumps(published | {name: value}))
        with pytest.raises(ConfigError, match=message):
            load_vocoder(config)
    (vocoder / "config.json").write_text(json.dumps(published | {"hop_size": 200}))
    with pytest.raises(CheckpointError, match="hop_size is 200, but the upsampling makes 256"):
        load_vocoder(config)
    save_file({"x": torch.zeros(1)}, vocoder / "other.safetensors")
    with pytest.raises(CheckpointError, match="name the generator's file"):
        load_vocoder(config)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no HiFi-GAN generator"):
        load_vocoder(replace(config, vocoder=str(tmp_path / "empty")))


def test_the_published_vocoder_fits_the_presets_with_published_bands(weights_folder):
    path = weights_folder / "vocoder" / "hifigan_universal_22k.safetensors"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    for preset in (landscape, small):
        assert load_vocoder(replace(preset(), vocoder=str(path))) is not None
    with pytest.raises(ConfigError, match=r"vocoder\.num_mels is 80, the mel image's is 40"):
        load_vocoder(replace(tiny(), vocoder=str(path)))


def test_a_run_takes_the_classes_of_its_data_set_and_keeps_them(data, tmp_path, caplog):
    caplog.set_level("INFO")
    config = tiny()
    assert config.class_labels
    taken = with_data_classes(config, data, tmp_path)
    assert taken.generator.model.num_classes == 2
    assert "learns the data set's classes: dog, fire; --no-class-labels" in caplog.text
    without = replace(config, class_labels=False)
    assert with_data_classes(without, data, tmp_path) == without
    # A run that is under way keeps what it has, with classes or, if older, without.
    save_json(taken, tmp_path / "config.json")
    assert with_data_classes(config, tmp_path / "gone", tmp_path) == taken
    save_json(without, tmp_path / "config.json")
    assert with_data_classes(config, data, tmp_path) == without
