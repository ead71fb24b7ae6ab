"""All stages of MM-LDM on a data set of four small clips: order, resuming, previews, the model."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from soundreel.checkpoints.adapter import Adapter
from soundreel.checkpoints.fingerprint import fingerprint
from soundreel.checkpoints.lora import LoRAConfig
from soundreel.config import DataConfig
from soundreel.config_io import ConfigError, save_json
from soundreel.data.dataset import PreparedDataset
from soundreel.data.latents import LatentDataset
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.media.encode import write_mkv
from soundreel.systems import load
from soundreel.systems.mm_ldm.generator_run import LongRun
from soundreel.systems.mm_ldm.import_stable_diffusion import OWN_LAYERS
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.official_keys import to_official
from soundreel.systems.mm_ldm.perceptual_encoders import VideoEncoder
from soundreel.systems.mm_ldm.presets import landscape
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoder
from soundreel.systems.mm_ldm.stable_diffusion_keys import (
    kl_vae_diffusers_rules,
    unet_diffusers_rules,
)
from soundreel.systems.mm_ldm.tiny_preset import tiny
from soundreel.systems.mm_ldm.training import (
    stages_of,
    tell_what_starts_from_noise,
    train_mm_ldm,
)
from soundreel.training.loop import TrainConfig
from soundreel.training.trackers import read_log

SIZE = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A square that moves right while the tone that belongs to it rises; one clip held out."""
    return moving_squares(tmp_path_factory, num_frames=10)


def moving_squares(tmp_path_factory, num_frames):
    folder = tmp_path_factory.mktemp("videos")
    for number in range(4):
        frames = np.zeros((num_frames, SIZE, SIZE, 3), dtype=np.uint8)
        for index in range(num_frames):
            left = 2 * index + number
            frames[index, 8:20, left : left + 8] = (200, 60 * number, 90)
        times = np.arange(1_600 * num_frames) / 16_000
        tone = 0.4 * np.sin(2 * np.pi * (200 + 150 * number + 400 * times) * times)
        write_mkv(
            folder / f"{number}.mkv",
            list(frames),
            tone.astype(np.float32)[None],
            Fraction(10),
            16_000,
        )
    target = tmp_path_factory.mktemp("prepared") / "set"
    options = PrepareOptions(
        height=SIZE,
        width=SIZE,
        sample_rate=16_000,
        min_duration_s=0.8,
        test=1.0,
    )
    prepare_dataset(folder, target, options)
    return target


def small_run(*, cached=True, adversary=True):
    base = tiny()
    train = TrainConfig(
        total_samples=8,
        global_batch_size=4,
        micro_batch_size=2,
        learning_rate=1e-3,
        ema_decay=0.5,
        log_every=4,
        save_every=4,
        preview_every=8,
        precision="float32",
    )
    return replace(
        base,
        first_stage=replace(
            base.first_stage,
            loss=replace(base.first_stage.loss, adversarial_start=4),
            train=train,
        ),
        autoencoder=replace(base.autoencoder, cache_first_stage=cached, train=train),
        adversarial=replace(base.adversarial, enabled=adversary, train=train),
        generator=replace(base.generator, train=train),
        decoding=replace(base.decoding, num_steps=2),
        sampling=replace(base.sampling, num_steps=2),
        data=DataConfig(stride=1),
        preview=replace(base.preview, count=1),
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train_mm_ldm(small_run(), data, out)
    return out


@pytest.mark.slow
def test_all_stages_leave_logs_previews_and_a_model_that_generates(finished):
    for stage in ("first_stage", "autoencoder", "adversarial", "generator"):
        assert read_log(finished / stage / "log.jsonl")[-1]["samples"] == 8
        assert (finished / stage / "previews" / "000000008.png").stat().st_size > 5_000
    numbers = (finished / "autoencoder" / "previews" / "numbers.jsonl").read_text()
    assert "frame_psnr_db" in numbers
    log = read_log(finished / "adversarial" / "log.jsonl")[-1]
    assert {"autoencoder/adversarial", "discriminator/hinge"} <= set(log)
    clip = load(finished / "model").generate(count=1, seed=3)[0]
    assert clip.frames.shape == (8, SIZE, SIZE, 3)
    assert clip.waveform.shape == (1, 12_800)
    scale = load(finished / "model").first_stage.config.latent_scale
    assert scale != tiny().first_stage.model.latent_scale, "it is measured after training"


@pytest.mark.slow
def test_an_adapter_of_the_generator_is_trained_and_loaded(data, finished, tmp_path):
    config, model = small_run(), finished / "model"
    train = replace(config.generator.train, lora=LoRAConfig(rank=2), learning_rate=1e-2)
    config = replace(config, generator=replace(config.generator, train=train))
    out = tmp_path / "run"
    assert train_mm_ldm(config, data, out, stages=["generator"], init=str(model))
    adapter = Adapter.read(out / "generator" / "adapter")
    assert adapter.component == "generator"
    assert any(b.any() for _, b in adapter.products.values())
    joined, merged = load(model, adapter=out / "generator" / "adapter"), load(out / "model")
    before, after = load(model).generator.state_dict(), merged.generator.state_dict()
    for key, value in joined.generator.state_dict().items():
        assert torch.allclose(value, after[key], atol=1e-6), key
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert {key.removesuffix(".weight") for key in moved} <= set(adapter.products)
    assert joined.generate(seed=1)[0].num_samples == 12_800


@pytest.mark.slow
def test_latents_made_from_cached_moments_are_those_of_the_pixels(finished, data):
    config = small_run()
    windows = PreparedDataset(data, spec=config.clip, split="train", stride=1)
    pipeline = load(finished / "model")
    latents = LatentDataset(finished / "latents", axes=config.latent_axes)
    assert len(latents) == len(windows)
    for index in (0, len(windows) - 1):
        from_pixels = pipeline.encode_av(windows[index].av.map(lambda x: x[None]))
        for cached, wanted in zip(latents[index].av.tensors, from_pixels.tensors, strict=True):
            torch.testing.assert_close(cached[None], wanted, atol=2e-3, rtol=1e-3)


@pytest.mark.slow
def test_the_averaged_weights_are_what_a_stage_leaves(finished):
    for stage, trainee in (("autoencoder", "autoencoder"), ("generator", "generator")):
        checkpoint = finished / stage / "checkpoints" / "000000008"
        averaged, last = (
            load_file(checkpoint / f"{trainee}{kind}.safetensors") for kind in (".ema", "")
        )
        left = load_file(finished / stage / "component" / "network" / "model.safetensors")
        assert all(torch.equal(left[key], averaged[key]) for key in left)
        assert any(not torch.equal(left[key], last[key]) for key in left)


def test_an_encoder_that_is_to_stay_must_have_been_trained(data, tmp_path):
    config = small_run(cached=False, adversary=False)
    loss = replace(config.first_stage.loss, freeze_encoder=True)
    config = replace(config, first_stage=replace(config.first_stage, loss=loss))
    with pytest.raises(ConfigError, match=r"freeze_encoder keeps .*first_stage\.weights"):
        train_mm_ldm(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_first_stage_that_is_given_is_no_stage_to_train(data, tmp_path):
    given = replace(small_run().first_stage, weights="start")
    config = replace(small_run(), first_stage=given)
    with pytest.raises(ConfigError, match=r"trains the stages autoencoder, .*, not first_stage"):
        train_mm_ldm(config, data, tmp_path / "run", stages=["first_stage"])
    assert not (tmp_path / "run").exists()
    tuned = replace(config, first_stage=replace(given, finetune=True))
    counts = [[s.total_samples for s in stages_of(c)][:2] for c in (config, tuned)]
    assert counts == [[0, 8], [8, 8]]


def test_published_networks_without_their_published_start_are_told(caplog):
    config = landscape()
    loss = replace(config.first_stage.loss, freeze_encoder=False)
    config = replace(config, first_stage=replace(config.first_stage, loss=loss))
    tell_what_starts_from_noise(config, [])
    tell_what_starts_from_noise(config, ["autoencoder"])
    told = [record.getMessage() for record in caplog.records]
    assert "from noise" in told[0]
    assert "give first_stage.weights and autoencoder.unet_weights, or a model" in told[0]
    assert "give autoencoder.unet_weights, or a model" in told[1]
    started = replace(config, autoencoder=replace(config.autoencoder, unet_weights="unet"))
    tell_what_starts_from_noise(started, ["autoencoder", "generator"])
    tell_what_starts_from_noise(tiny(), [])
    assert len(caplog.records) == 2


@pytest.mark.slow
def test_stages_start_from_stable_diffusion_files(data, tmp_path):
    """A frozen encoder stays as it came; the signal decoder begins with the U-Net's weights."""
    config = small_run(cached=False, adversary=False)
    torch.manual_seed(5)
    vae, unet = KLVAE(config.first_stage.model), SignalDecoder(config.autoencoder.model.decoder)
    rules = kl_vae_diffusers_rules(len(vae.config.channel_mult))
    state = {key: value.contiguous() for key, value in to_official(vae, rules).items()}
    save_file(state, tmp_path / "vae.safetensors")
    rules = unet_diffusers_rules(config.autoencoder.model.decoder)
    save_file(sd_part(unet, rules), tmp_path / "unet.safetensors")
    still = replace(config.autoencoder.train, total_samples=4, learning_rate=1e-12, preview_every=0)
    loss = replace(config.first_stage.loss, freeze_encoder=True)
    config = replace(
        config,
        first_stage=replace(
            config.first_stage, weights=str(tmp_path / "vae.safetensors"), finetune=True, loss=loss
        ),
        autoencoder=replace(
            config.autoencoder, unet_weights=str(tmp_path / "unet.safetensors"), train=still
        ),
    )
    out = tmp_path / "run"
    assert train_mm_ldm(config, data, out, stages=["first_stage", "autoencoder"])
    tuned = load_file(out / "first_stage" / "component" / "network" / "model.safetensors")
    for key, value in vae.state_dict().items():
        is_decoder = key.startswith(("decoder.", "from_latent"))
        if key == "decoder.conv_out.weight" or not is_decoder:
            assert torch.equal(tuned[key], value) != is_decoder, key
    begun = load_file(out / "autoencoder" / "component" / "network" / "model.safetensors")
    for key, value in unet.state_dict().items():
        if key.split(".")[0] not in OWN_LAYERS:
            torch.testing.assert_close(begun[f"decoder.{key}"], value, atol=1e-6, rtol=0)


def sd_part(decoder, rules):
    """The U-Net's own weights, named as diffusers names them."""
    named = zip(to_official(decoder, rules).items(), decoder.state_dict(), strict=True)
    return {k: v.contiguous() for (k, v), ours in named if ours.split(".")[0] not in OWN_LAYERS}


@pytest.mark.slow
def test_a_generator_is_fine_tuned_on_the_other_networks_of_its_model(finished, data, tmp_path):
    model, base = finished / "model", small_run()
    still = replace(base.generator.train, learning_rate=1e-12, ema_decay=0.0)
    config = replace(base, generator=replace(base.generator, train=still))
    out = tmp_path / "tuned"
    assert train_mm_ldm(config, data, out, stages=["generator"], init=str(model))
    for name in ("first_stage", "autoencoder", "latent_stats", "generator"):
        before, after = (
            load_file(folder / name / "model.safetensors") for folder in (model, out / "model")
        )
        for key, value in before.items():
            assert torch.allclose(after[key], value, atol=1e-9), f"{name} {key}"
    with pytest.raises(ConfigError, match=r"was begun from .*model, not from elsewhere"):
        train_mm_ldm(config, data, out, resume=True, init="elsewhere")


@pytest.mark.slow
def test_a_model_learns_to_go_on_and_makes_films(finished, tmp_path_factory, tmp_path):
    data = moving_squares(tmp_path_factory, num_frames=12)
    base = small_run()
    long = LongRun(enabled=True, history_depth=1, overlap=4, train=base.generator.train)
    config, out = replace(base, long=long), tmp_path / "long"
    assert train_mm_ldm(config, data, out, stages=["long"], init=str(finished / "model"))
    line = read_log(out / "long" / "log.jsonl")[-1]
    assert line["samples"] == 8
    assert any(name.startswith("generator/mse_video/") for name in line)
    before, after = (
        load_file(folder / "generator" / "model.safetensors")
        for folder in (finished / "model", out / "model")
    )
    assert {f"generator.{key}" for key in before} <= after.keys()
    pipeline = load(out / "model")
    film = pipeline.generate(duration_s=2, seed=3)[0]
    assert (film.num_frames, film.num_samples) == (20, 32_000)
    on = pipeline.generate(after=film, duration_s=3, modality="audio")[0]
    assert (on.frames, on.num_samples) == (None, 48_000)
    assert np.array_equal(on.waveform[:, :32_000], film.waveform)


@pytest.mark.slow
def test_a_run_done_in_pieces_equals_one_done_at_once(finished, data, tmp_path):
    config = small_run()
    half = replace(
        config,
        first_stage=replace(
            config.first_stage, train=replace(config.first_stage.train, total_samples=4)
        ),
    )
    out = tmp_path / "pieces"
    assert train_mm_ldm(half, data, out, stages=["first_stage"])
    with pytest.raises(ConfigError, match="holds a run already"):
        train_mm_ldm(config, data, out)
    # The first stage has stopped early; take its mark away, as if it had been interrupted.
    for path in sorted((out / "first_stage" / "component").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (out / "first_stage" / "component").rmdir()
    for stages in (["first_stage"], ["autoencoder"], ["adversarial", "generator"]):
        assert train_mm_ldm(config, data, out, resume=True, stages=stages)
    for part in ("first_stage", "autoencoder", "generator", "latent_stats"):
        once = load_file(finished / "model" / part / "model.safetensors")
        pieces = load_file(out / "model" / part / "model.safetensors")
        assert all(torch.equal(once[key], pieces[key]) for key in once), part


@pytest.mark.slow
def test_a_run_killed_within_every_stage_equals_one_done_at_once(finished, data, tmp_path):
    """Each part dies at the last log line of a stage, past a checkpoint at its middle."""
    config, out = small_run(), tmp_path / "killed"

    def dying():
        def track(numbers):
            if numbers["samples"] == 8:
                raise Killed

        return [track]

    for stage in ("first_stage", "autoencoder", "adversarial", "generator"):
        with pytest.raises(Killed):
            train_mm_ldm(config, data, out, resume=out.exists(), trackers=dying)
        assert [p.name for p in (out / stage / "checkpoints").iterdir()] == ["000000004"]
        assert not (out / stage / "component").exists()
        assert train_mm_ldm(config, data, out, resume=True, stages=[stage])
    for part in ("first_stage", "autoencoder", "generator", "latent_stats"):
        once = load_file(finished / "model" / part / "model.safetensors")
        pieces = load_file(out / "model" / part / "model.safetensors")
        assert all(torch.equal(once[key], pieces[key]) for key in once), part


def test_a_fingerprint_is_of_all_weights_and_of_the_data():
    torch.manual_seed(0)
    encoder = VideoEncoder(tiny().autoencoder.model.video_encoder)
    first = fingerprint([encoder], {"data": "a"})
    assert fingerprint([encoder], {"data": "a"}) == first
    assert fingerprint([encoder], {"data": "b"}) != first
    with torch.no_grad():
        encoder.mean_head.out.bias += 1
    assert fingerprint([encoder], {"data": "a"}) != first


class Killed(BaseException):
    """What no part of the program catches, as if the process had died."""


@pytest.mark.slow
def test_pixels_and_no_adversary_work_too(data, tmp_path):
    config = small_run(cached=False, adversary=False)
    assert train_mm_ldm(config, data, tmp_path / "run", stages=["first_stage", "autoencoder"])
    assert not (tmp_path / "run" / "moments").exists()
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.usefixtures("process_as_before")
def test_stages_out_of_order_and_other_configurations_are_refused(data, tmp_path):
    config, out = small_run(), tmp_path / "run"
    with pytest.raises(ConfigError, match=r"trains the stages first_stage, .*, not vocoder"):
        train_mm_ldm(config, data, out, stages=["vocoder"])
    with pytest.raises(ConfigError, match="no run to resume"):
        train_mm_ldm(config, data, out, resume=True)
    with pytest.raises(ConfigError, match="generator needs first_stage"):
        train_mm_ldm(config, data, out, stages=["generator"])
    assert not out.exists()
    without = replace(config, adversarial=replace(config.adversarial, enabled=False))
    with pytest.raises(ConfigError, match="not adversarial"):
        train_mm_ldm(without, data, out, stages=["adversarial"])
    out.mkdir()
    save_json(config, out / "config.json")
    other = replace(config, data=replace(config.data, stride=2))
    with pytest.raises(ConfigError, match=r"\(data\.stride;"):
        train_mm_ldm(other, data, out, resume=True)
