"""The super-resolution U-Net, its losses and its sampling against the reference tensors."""

import json

import pytest
import torch
from safetensors.torch import load_file

from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.losses import diffusion_loss
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
    super_resolution_denoiser,
)
from soundreel.types import AV

NETWORK_TOLERANCE = 5e-5
LOSS_TOLERANCE = 5e-5
GRADIENT_TOLERANCE = 1e-4
TRAJECTORY_TOLERANCE = 1e-3


def read(folder, name):
    path = folder / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {folder}")
    return load_file(path) if path.suffix == ".safetensors" else json.loads(path.read_text())


def assert_close(got, expected, tolerance):
    assert got.shape == expected.shape
    error = float((got.detach() - expected).abs().max() / expected.abs().max())
    assert error <= tolerance, f"relative error {error:.2e}"


def config_from_sidecar(c, low_res_size):
    if not c["resblock_updown"]:
        pytest.skip(
            "this set resamples outside the residual blocks, which no published network does"
        )
    return SuperResolutionConfig(
        low_res_size=low_res_size,
        size=c["image_size"],
        image_channels=c["in_channels"],
        width=c["model_channels"],
        channel_mult=tuple(c["channel_mult"]),
        num_res_blocks=c["num_res_blocks"],
        attention_factors=tuple(c["attention_resolutions"]),
        num_heads=c["num_heads"],
        head_width=max(0, c["num_head_channels"]),
        scale_shift_norm=c["use_scale_shift_norm"],
        learned_variance=c["out_channels"] == 2 * c["in_channels"],
        dropout=c["dropout"],
    )


@pytest.fixture(scope="module")
def reference(parity_folder):
    folder = parity_folder("mm_diffusion")
    sidecar, tensors = read(folder, "unet_sr.json"), read(folder, "unet_sr.io.safetensors")
    config = config_from_sidecar(sidecar["config"], tensors["in.low_res"].shape[-1])
    network = SuperResolutionUNet(config).eval()
    network.load_state_dict(read(folder, "unet_sr.weights.safetensors"))
    return folder, sidecar, tensors, network


def test_the_output_equals_the_reference(reference):
    _, sidecar, tensors, network = reference
    assert sum(p.numel() for p in network.parameters()) == sidecar["parameters"]
    with torch.no_grad():
        out = network(tensors["in.x"], tensors["in.low_res"], tensors["in.timesteps"].long())
    assert_close(out, tensors["out"], NETWORK_TOLERANCE)


LOSSES = {
    "mse": {},
    "rescaled_mse": {"rescale_vb": True},
    "rescaled_kl": {"objective": "variational", "rescale_vb": True},
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_equal_the_reference(reference, name):
    folder, _, _, network = reference
    tensors = read(folder, "training_losses.safetensors")
    expected = {
        key.removeprefix(f"sr/{name}."): value
        for key, value in tensors.items()
        if key.startswith(f"sr/{name}.")
    }
    if not expected:
        pytest.skip(f"sr/{name} is not in this set")
    got = diffusion_loss(
        super_resolution_denoiser(network, tensors["sr/low_res"]),
        AV(tensors["sr/x0"], None),
        tensors["sr/t"].long(),
        AV(tensors["sr/noise"], None),
        linear_schedule(1000),
        variance="learned_range",
        **LOSSES[name],
    )
    assert_close(got.loss, expected.pop("loss"), LOSS_TOLERANCE)
    for term, value in expected.items():
        assert_close(got.terms[f"{term}_video"], value, LOSS_TOLERANCE)

    norms = read(folder, "training_losses.json").get(f"sr_{name}_grad_l2_norm", {})
    network.zero_grad()
    got.loss.mean().backward()
    own = {key: float(value.grad.norm()) for key, value in network.named_parameters()}
    assert own.keys() >= norms.keys()
    # A bias before a norm of its own channel has gradient zero, of which rounding alone remains:
    # hence a floor relative to the largest gradient.
    floor = 1e-6 * max(norms.values(), default=1.0)
    for key, value in norms.items():
        assert own[key] == pytest.approx(value, rel=GRADIENT_TOLERANCE, abs=floor), key


def test_five_ddim_steps_equal_the_reference(reference):
    folder, _, _, network = reference
    tensors = read(folder, "samplers_unet.safetensors")
    if "sr_ddim5/final" not in tensors:
        pytest.skip("sr_ddim5 is not in this set")
    with torch.no_grad():
        final = ddim(
            super_resolution_denoiser(network, tensors["sr_ddim5/low_res"]),
            AV(tensors["sr_ddim5/x_T"], None),
            respace(linear_schedule(1000), "ddim5"),
        )
    assert_close(final["video"], tensors["sr_ddim5/final"], TRAJECTORY_TOLERANCE)
