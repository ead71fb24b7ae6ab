"""Stable Diffusion files become a folder of the networks that MM-LDM starts from."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import soundreel
from soundreel.app.workshop import Workshop
from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import load_component, load_model_index
from soundreel.cli.clip_sources import clip_items
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.protocols import Pipeline
from soundreel.systems.mm_ldm.import_stable_diffusion import load_kl_vae, load_unet
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.official_keys import to_official
from soundreel.systems.mm_ldm.signal_decoder import SignalDecoder, SignalDecoderConfig
from soundreel.systems.mm_ldm.stable_diffusion_folder import (
    StableDiffusionSizes,
    import_stable_diffusion,
)
from soundreel.systems.mm_ldm.stable_diffusion_keys import (
    kl_vae_diffusers_rules,
    unet_diffusers_rules,
)

SIZES = StableDiffusionSizes(
    first_stage=KLVAEConfig(width=16, channel_mult=(1, 2), num_res_blocks=1),
    decoder=SignalDecoderConfig(
        image_size=8,
        width=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_factors=(1,),
        num_heads=4,
        context_dim=16,
        num_classes=2,
    ),
)
OWN = ("video_content", "audio_content", "video_context", "audio_context", "class_embed")


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return KLVAE(SIZES.first_stage), SignalDecoder(SIZES.decoder)


def parts(networks):
    """Both networks' tensors under the names of diffusers."""
    first_stage, decoder = networks
    vae = to_official(first_stage, kl_vae_diffusers_rules(2))
    unet = to_official(decoder, unet_diffusers_rules(SIZES.decoder))
    return vae, {key: v for key, v in unet.items() if not key.startswith(OWN)}


def assert_folder_holds(folder, networks):
    first_stage, _ = load_component(folder, "first_stage", KLVAE, KLVAEConfig)
    decoder, config = load_component(folder, "signal_decoder", SignalDecoder, SignalDecoderConfig)
    assert config == SIZES.decoder
    for loaded, source in ((first_stage, networks[0]), (decoder, networks[1])):
        for key, value in source.state_dict().items():
            if not key.startswith(OWN):
                assert torch.equal(loaded.state_dict()[key], value), key


def test_two_files_make_one_folder(tmp_path, networks):
    files = [tmp_path / "vae.pt", tmp_path / "unet.pt"]
    for path, tensors in zip(files, parts(networks), strict=True):
        torch.save(tensors, path)
    lines = import_stable_diffusion(files, tmp_path / "model", SIZES)
    assert len(lines) == 2
    assert_folder_holds(tmp_path / "model", networks)
    index = load_model_index(tmp_path / "model")
    assert index.system == "mm-ldm"
    assert list(index.components) == ["first_stage", "signal_decoder"]


def test_the_command_imports_them(tmp_path, networks, monkeypatch, capsys):
    monkeypatch.setattr(
        "soundreel.systems.mm_ldm.stable_diffusion_folder.StableDiffusionSizes", lambda: SIZES
    )
    files = [tmp_path / "vae.safetensors", tmp_path / "unet.safetensors"]
    for path, tensors in zip(files, parts(networks), strict=True):
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    start = tmp_path / "models" / "start"
    assert run(["import", "stable-diffusion", *map(str, files), str(start)]) == 0
    assert f"{start / 'first_stage'}: " in capsys.readouterr().out
    assert_folder_holds(start, networks)


def imported(networks, target, numbers=(0, 1)):
    files = []
    for number in numbers:
        files.append(target.with_name(f"{number}.pt"))
        torch.save(parts(networks)[number], files[-1])
    import_stable_diffusion(files, target, SIZES)
    return target


def test_the_folder_opens_as_its_first_stage(tmp_path):
    config = KLVAEConfig(width=8, channel_mult=(1, 1, 1, 1), num_res_blocks=1)
    first_stage = KLVAE(config).eval()
    torch.save(to_official(first_stage, kl_vae_diffusers_rules(4)), tmp_path / "vae.pt")
    sizes = replace(SIZES, first_stage=config)
    import_stable_diffusion([tmp_path / "vae.pt"], tmp_path / "start", sizes)
    pipeline = soundreel.load(tmp_path / "start")
    assert isinstance(pipeline, Pipeline)
    spec = pipeline.clip
    assert (spec.height, spec.num_frames, spec.sample_rate) == (256, 16, 44_100)
    rng = np.random.default_rng(0)
    clip = Clip(
        frames=rng.integers(0, 256, (40, 256, 256, 3), dtype=np.uint8),
        waveform=rng.uniform(-0.5, 0.5, (2, 88_200)).astype(np.float32),
        frame_rate=Fraction(20),  # two seconds at twice the model's rate, in stereo
        sample_rate=44_100,
    )
    latents = pipeline.encode(clip)
    with torch.no_grad():
        frame = torch.from_numpy(clip.frames[0]).permute(2, 0, 1)[None] / 127.5 - 1
        frame_latent = first_stage.encode(frame)[0]
    assert latents.video.shape == (1, 16, 4, 32, 32)
    assert latents.audio.shape == (1, 4, 32, 32)
    apart = (latents.video[0] - frame_latent).flatten(1).norm(dim=1) / frame_latent.norm()
    assert apart[0] < 0.05, "up to bfloat16"
    assert apart[1:].min() > 0.2, "each frame has its own"
    (made,) = pipeline.decode(latents)
    assert made.frames.shape == (16, 256, 256, 3)
    assert made.waveform.shape == (1, 70_560)
    again = pipeline.reconstruct(clip)
    np.testing.assert_array_equal(again.frames, made.frames)
    pipeline.save(tmp_path / "first-stage")
    saved = soundreel.load(tmp_path / "first-stage")
    assert torch.equal(saved.encode(clip).video, latents.video)


def test_the_folder_of_a_first_stage_generates_nothing_and_says_so(tmp_path, networks, capsys):
    start = imported(networks, tmp_path / "start")
    told = "this model only encodes and decodes; train it"
    with pytest.raises(SoundreelError, match=told):
        soundreel.load(start).generate(seed=1)
    earlier = tmp_path / "out" / "0000000000.mp4"
    earlier.parent.mkdir()
    earlier.write_bytes(b"earlier")
    for words in (
        ["generate", str(start), "--out", str(earlier.parent), "--overwrite"],
        ["demo", str(start), "--out", str(earlier.parent), "--overwrite"],
    ):
        assert run(words) == 2, words
        lines = capsys.readouterr().err.strip().splitlines()
        assert [told in line for line in lines] == [True], words
    assert earlier.read_bytes() == b"earlier"
    with pytest.raises(SoundreelError, match=told):
        clip_items(start, "", None, 0)  # as `soundreel evaluate` does
    with pytest.raises(SoundreelError, match=told):
        Workshop(soundreel.load(start), tmp_path / "page")  # as `soundreel app` does
    assert run(["info", str(start)]) == 0
    assert "first_stage: kl-vae, " in capsys.readouterr().out


def test_a_u_net_alone_is_no_model(tmp_path, networks):
    start = imported(networks, tmp_path / "start", [1])
    with pytest.raises(CheckpointError, match="holds no complete mm-ldm model, only signal_dec"):
        soundreel.load(start)


def test_a_first_stage_whose_projections_change_the_width_is_imported(tmp_path):
    """`embed_dim` 3 and `z_channels` 5 in CompVis's words."""
    source = KLVAE(replace(SIZES.first_stage, latent_channels=3, z_channels=5)).eval()
    path = tmp_path / "vae.pt"
    torch.save(to_official(source, kl_vae_diffusers_rules(2)), path)
    import_stable_diffusion([path], tmp_path / "model", SIZES)
    loaded, config = load_component(tmp_path / "model", "first_stage", KLVAE, KLVAEConfig)
    assert (config.latent_channels, config.z_channels) == (3, 5)
    image = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded.eval().encode(image), source.encode(image))


def test_a_full_checkpoint_is_taken_apart_and_the_rest_is_named(tmp_path, networks):
    vae, unet = parts(networks)
    state = {f"first_stage_model.{key}": value for key, value in vae.items()}
    state |= {f"model.diffusion_model.{key}": value for key, value in unet.items()}
    state |= {"cond_stage_model.a": torch.zeros(1), "model_ema.b": torch.zeros(1)}
    torch.save({"state_dict": state}, tmp_path / "sd.ckpt")
    lines = import_stable_diffusion([tmp_path / "sd.ckpt"], tmp_path / "model", SIZES)
    assert lines[2].endswith("left out 2 tensors of cond_stage_model, model_ema")
    assert_folder_holds(tmp_path / "model", networks)


def test_own_layers_start_the_same_every_time(tmp_path, networks):
    torch.save(parts(networks)[1], tmp_path / "unet.pt")
    tables = []
    for name in ("a", "b"):
        import_stable_diffusion([tmp_path / "unet.pt"], tmp_path / name, SIZES)
        decoder, _ = load_component(
            tmp_path / name, "signal_decoder", SignalDecoder, SignalDecoderConfig
        )
        tables.append(decoder.state_dict()["class_embed.weight"])
    assert torch.equal(*tables)


def test_other_files_and_sizes_are_refused_without_a_trace(tmp_path, networks):
    vae, _ = parts(networks)
    path = tmp_path / "file.pt"
    for tensors, message in (
        ({"w": torch.zeros(1)}, "neither Stable Diffusion's autoencoder nor its U-Net"),
        ({k: v for k, v in vae.items() if k != "quant_conv.bias"}, "quant_conv.bias"),
        (vae | {"more.weight": torch.zeros(1)}, "more.weight"),
    ):
        torch.save(tensors, path)
        with pytest.raises(CheckpointError, match=message):
            import_stable_diffusion([path], tmp_path / "model", SIZES)
    torch.save(vae, path)
    with pytest.raises(CheckpointError, match="holds a second kl-vae"):
        import_stable_diffusion([path, path], tmp_path / "model", SIZES)
    assert [p.name for p in tmp_path.iterdir()] == ["file.pt"]


def fresh() -> tuple[KLVAE, SignalDecoder]:
    torch.manual_seed(7)
    return KLVAE(SIZES.first_stage), SignalDecoder(SIZES.decoder)


def assert_started_from(source, networks):
    """Both networks load, and MM-LDM's own layers stay as they were."""
    first_stage, decoder = fresh()
    before = {key: value.clone() for key, value in decoder.state_dict().items()}
    load_kl_vae(first_stage, source)
    load_unet(decoder, source)
    for loaded, published in ((first_stage, networks[0]), (decoder, networks[1])):
        for key, value in loaded.state_dict().items():
            expected = before[key] if key.startswith(OWN) else published.state_dict()[key]
            assert torch.equal(value, expected), key


def test_training_starts_from_the_imported_folder(tmp_path, networks):
    files = [tmp_path / "vae.pt", tmp_path / "unet.pt"]
    for path, tensors in zip(files, parts(networks), strict=True):
        torch.save(tensors, path)
    import_stable_diffusion(files, tmp_path / "model", SIZES)
    assert_started_from(tmp_path / "model", networks)
    assert_started_from(str(tmp_path / "model"), networks)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_training_starts_from_a_folder_of_diffusers_and_from_the_hub(
    tmp_path, networks, suffix, monkeypatch
):
    for name, tensors in zip(("vae", "unet"), parts(networks), strict=True):
        path = tmp_path / "sd" / name / f"diffusion_pytorch_model.{suffix}"
        path.parent.mkdir(parents=True)
        save = save_file if suffix == "safetensors" else torch.save
        save({key: value.contiguous() for key, value in tensors.items()}, path)
    assert_started_from(tmp_path / "sd", networks)
    first_stage, _ = fresh()
    load_kl_vae(first_stage, tmp_path / "sd" / "vae")
    asked = []

    def download(name, patterns):
        asked.append((name, patterns))
        return tmp_path / "sd"

    monkeypatch.setattr("soundreel.systems.mm_ldm.import_stable_diffusion.download", download)
    assert_started_from("runwayml/stable-diffusion-v1-5", networks)
    assert asked[0][0] == "runwayml/stable-diffusion-v1-5"
    assert f"vae/diffusion_pytorch_model.{suffix}" in asked[0][1]
    assert not any("*" in pattern for pattern in asked[0][1]), "nothing else is fetched"


def test_where_nothing_is_to_be_found_the_message_says_what_to_give(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights of Stable Diffusion's vae here; give a"):
        load_kl_vae(fresh()[0], tmp_path)
    (tmp_path / "first_stage").mkdir()
    (tmp_path / "first_stage" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"first_stage/model.safetensors: "):
        load_kl_vae(fresh()[0], tmp_path)
