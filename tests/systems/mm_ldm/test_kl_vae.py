"""The first stage: layouts of published files, chunks, sizes."""

import importlib.util
from dataclasses import replace

import av
import pytest
import torch
from published_mm_ldm import kl_vae_config, load_official
from safetensors.torch import save_file
from torch import nn

from soundreel.checkpoints.errors import CheckpointError
from soundreel.systems.mm_ldm.first_stage_loss import freeze_encoder
from soundreel.systems.mm_ldm.import_stable_diffusion import load_kl_vae
from soundreel.systems.mm_ldm.kl_vae import KLVAE, KLVAEConfig
from soundreel.systems.mm_ldm.official_keys import KL_VAE_COMPVIS, to_official
from soundreel.systems.mm_ldm.stable_diffusion_keys import kl_vae_diffusers_rules

SMALL = KLVAEConfig(width=16, channel_mult=(1, 2, 2), num_res_blocks=1)
UNIT_AXES = ("q.weight", "k.weight", "v.weight", "proj_out.weight")


def model(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return KLVAE(config).eval()


def first_frame(path):
    """Pixels in [-1, 1], with a batch of one."""
    with av.open(path) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1


def compvis(source):
    shapes = {
        key: (*value.shape, 1, 1) if key.endswith(UNIT_AXES) else value.shape
        for key, value in to_official(source, KL_VAE_COMPVIS).items()
    }
    return to_official(source, KL_VAE_COMPVIS, shapes)


def diffusers_layout(source):
    return to_official(source, kl_vae_diffusers_rules(len(source.config.channel_mult)))


def older_diffusers_layout(source):
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = diffusers_layout(source)
    for new, old in names.items():
        state = {
            k.replace(f"attentions.0.{new}", f"attentions.0.{old}"): v for k, v in state.items()
        }
    return state


def inside_a_checkpoint(source):
    state = {f"first_stage_model.{key}": value for key, value in compvis(source).items()}
    return {**state, "model.diffusion_model.out.0.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    "layout", [compvis, diffusers_layout, older_diffusers_layout, inside_a_checkpoint]
)
def test_files_of_every_layout_load(tmp_path, layout):
    source, target = model(seed=0), model(seed=1)
    state = {key: value.contiguous() for key, value in layout(source).items()}
    save_file(state, tmp_path / "vae.safetensors")
    load_kl_vae(target, tmp_path / "vae.safetensors")
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(source.encode(image), target.encode(image))
        latent = torch.randn(1, 4, 4, 4)
        assert torch.equal(source.decode(latent), target.decode(latent))


@pytest.mark.parametrize("linear_shortcut", [False, True])
def test_projections_may_change_the_width(linear_shortcut):
    """CompVis: `embed_dim` channels of the latent, `z_channels` of the networks around it."""
    published = {
        "embed_dim": 3,
        "ddconfig": {
            "in_channels": 3,
            "z_channels": 5,
            "ch": 32,
            "ch_mult": [1, 2],
            "num_res_blocks": 1,
        },
    }
    config = kl_vae_config(published)
    vae = model(replace(config, linear_shortcut=linear_shortcut))
    names = to_official(vae, KL_VAE_COMPVIS)
    shapes = {key: list(value.shape) for key, value in names.items()}
    assert shapes["encoder.conv_out.weight"] == [10, 64, 3, 3]
    assert shapes["quant_conv.weight"] == [6, 10, 1, 1]
    assert shapes["post_quant_conv.weight"] == [5, 3, 1, 1]
    assert shapes["decoder.conv_in.weight"] == [64, 5, 3, 3]
    image = torch.rand(2, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        moments = nn.functional.conv2d(
            vae.encoder(image), vae.to_moments.weight, vae.to_moments.bias
        )
        posterior = vae.posterior(image)
        torch.testing.assert_close(posterior.logvar, moments[:, 3:], atol=1e-5, rtol=1e-5)
        if not linear_shortcut:
            torch.testing.assert_close(posterior.mean, moments[:, :3], atol=1e-5, rtol=1e-5)
        latent = vae.encode(image)
        assert latent.shape == (2, 3, 4, 4)
        assert vae.decode(latent).shape == image.shape


def test_a_projection_that_changes_nothing_leaves_the_same_network():
    """Where `embed_dim` equals `z_channels`, what is said of them changes no weight."""
    published = {"in_channels": 3, "z_channels": 4, "ch": 32, "ch_mult": [1, 2]}
    published["num_res_blocks"] = 1
    config = kl_vae_config({"embed_dim": 4, "ddconfig": published})
    assert config == kl_vae_config(published)
    assert config.z_channels is None
    said = model(replace(config, z_channels=4))
    for key, value in model(config).state_dict().items():
        assert torch.equal(said.state_dict()[key], value)


def test_diffusers_names_and_shapes_are_those_of_its_stable_diffusion_files():
    """Names known from the published `vae/diffusion_pytorch_model.safetensors`."""
    with torch.device("meta"):
        full = KLVAE(KLVAEConfig())
    shapes = {key: list(value.shape) for key, value in diffusers_layout(full).items()}
    assert len(shapes) == 248
    known = {
        "quant_conv.weight": [8, 8, 1, 1],
        "encoder.conv_in.weight": [128, 3, 3, 3],
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight": [256, 128, 1, 1],
        "encoder.down_blocks.2.downsamplers.0.conv.weight": [512, 512, 3, 3],
        "encoder.mid_block.attentions.0.group_norm.weight": [512],
        "encoder.conv_norm_out.weight": [512],
        "decoder.mid_block.attentions.0.to_out.0.bias": [512],
        "decoder.up_blocks.0.upsamplers.0.conv.weight": [512, 512, 3, 3],
        "decoder.up_blocks.2.resnets.0.conv_shortcut.weight": [256, 512, 1, 1],
        "decoder.up_blocks.3.resnets.2.conv2.weight": [128, 128, 3, 3],
        "decoder.conv_out.weight": [3, 128, 3, 3],
    }
    assert {key: shapes.get(key) for key in known} == known


@pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None,
    reason="diffusers is not installed; its AutoencoderKL cannot be compared with",
)
def test_reconstruction_equals_that_of_diffusers():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
    ).eval()
    ours = model(KLVAEConfig(width=32, channel_mult=(1, 2, 2), num_res_blocks=1))

    load_official(ours, theirs.state_dict(), kl_vae_diffusers_rules(3))
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected = theirs.encode(image).latent_dist
        got = ours.posterior(image)
        torch.testing.assert_close(got.mean, expected.mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(got.logvar, expected.logvar, atol=1e-5, rtol=1e-4)
        latent = torch.randn(2, 4, 8, 8)
        decoded = ours.decode(latent * ours.config.latent_scale)
        torch.testing.assert_close(decoded, theirs.decode(latent).sample, atol=1e-5, rtol=1e-4)


def test_files_of_another_size_are_refused_by_name(tmp_path):
    state = compvis(model(KLVAEConfig(width=32, channel_mult=(1, 2, 2), num_res_blocks=1)))
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_kl_vae(model(), tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match="no weights of Stable Diffusion"):
        load_kl_vae(model(), tmp_path / "absent.safetensors")


def test_frames_in_chunks_equal_frames_at_once():
    vae = model()
    video = torch.rand(2, 5, 3, 16, 16) * 2 - 1
    noise = torch.randn(2, 5, 4, 4, 4)
    with torch.no_grad():
        whole = vae.encode_frames(video, noise)
        parts = vae.encode_frames(video, noise, chunk=3)
        torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)
        single = vae.encode(video[1, 4][None], noise[1, 4][None])
        torch.testing.assert_close(whole[1, 4][None], single, atol=1e-5, rtol=1e-4)
        decoded = vae.decode_frames(whole, chunk=4)
        torch.testing.assert_close(decoded[0, 3], vae.decode(whole[:1, 3])[0], atol=1e-5, rtol=1e-4)


def test_odd_image_sizes_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        model().encode(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match="channel_mult"):
        KLVAEConfig(channel_mult=())


def test_the_shortcut_starts_as_the_cosine_coefficients_of_a_patch():
    """An image of the kept waves alone goes through unchanged; of all others nothing is left."""
    config = replace(SMALL, latent_channels=8, linear_shortcut=True)
    kept = torch.rand(2, 1, 1, 1).expand(2, 3, 16, 16) * 2 - 1
    rows = torch.cos(torch.pi * 2 * (torch.arange(4) + 0.5) / 4).repeat(4)  # second of a patch of 4
    kept = kept + 0.3 * rows[:, None]
    lost = torch.ones(16)
    lost[1::2] = -1  # a wave of two pixels
    with torch.no_grad():
        network = model(config)
        torch.testing.assert_close(network.decode(network.encode(kept)), kept, atol=1e-5, rtol=0)
        rest = network.decode(network.encode(lost.expand(1, 3, 16, 16).clone()))
    assert float(rest.square().mean()) < 0.2


def test_channels_of_the_shortcut_are_about_equally_large_on_a_photograph(clips_folder):
    path = clips_folder / "sound_of_water" / "example_video.mp4"
    frame = first_frame(path)[:, :, :256, :256]
    network = model(replace(KLVAEConfig(width=32), latent_channels=8, linear_shortcut=True))
    with torch.no_grad():
        spread = network.encode(frame).std(dim=(0, 2, 3)) / network.config.latent_scale
    assert float(spread.max() / spread.min()) < 8  # 13 before they are divided by their usual size


def test_the_shortcut_learns_within_a_few_steps_what_the_networks_alone_do_not():
    torch.manual_seed(0)
    waves = torch.cos(torch.linspace(0, 9, 16))
    images = torch.stack([a * waves[:, None] + b * waves for a, b in torch.randn(64, 2)])
    images = images.clamp(-1, 1)[:, None].expand(-1, 3, -1, -1)
    error = {}
    for shortcut in (False, True):
        network = model(replace(SMALL, linear_shortcut=shortcut)).train()
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        for step in range(20):
            batch = images[8 * (step % 8) :][:8]
            noise = torch.randn(8, 4, 4, 4)
            loss = (network(batch, noise)[0] - batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        error[shortcut] = float(loss.detach())
    assert error[True] < 0.5 * error[False]


def test_a_frozen_encoder_keeps_its_side_of_the_shortcut():
    network = model(replace(SMALL, linear_shortcut=True))
    freeze_encoder(network)
    learns = {name for name, value in network.named_parameters() if value.requires_grad}
    assert "shortcut.to_image.weight" in learns
    assert "shortcut.to_latent.weight" not in learns
