"""Training losses of the tiny coupled networks and their gradients, against the reference."""

import json

import pytest
import torch
from safetensors.torch import load_file

from soundreel.diffusion.denoiser import Prediction
from soundreel.diffusion.losses import diffusion_loss
from soundreel.diffusion.process import q_sample
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.systems.mm_diffusion.coupled_unet import split_variance
from soundreel.systems.mm_diffusion.official_keys import to_official
from soundreel.types import AV

TOLERANCE = 5e-5
GRADIENT_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reference(parity_folder):
    folder = parity_folder("mm_diffusion")
    for name in ("training_losses.safetensors", "training_losses.json"):
        if not (folder / name).is_file():
            pytest.skip(f"{name} is not in {folder}")
    norms = json.loads((folder / "training_losses.json").read_text())
    return load_file(folder / "training_losses.safetensors"), norms


def pair(data, name):
    if f"{name}.video" not in data:
        pytest.skip(f"{name} is not in this set")
    return AV(data[f"{name}.video"], data[f"{name}.audio"])


def assert_close(got, wanted, tolerance, what):
    error = float((got.detach() - wanted).abs().max() / wanted.abs().max())
    assert error <= tolerance, f"{what}: relative error {error:.1e}"


def assert_terms_close(got, data, prefix):
    wanted = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
    assert set(wanted) == {"loss", *got.terms}
    assert_close(got.loss, wanted.pop("loss"), TOLERANCE, "loss")
    for name, value in wanted.items():
        assert_close(got.terms[name], value, TOLERANCE, name)


def gradients(network, loss):
    """By official name, of the mean loss."""
    network.zero_grad()
    loss.mean().backward()
    return to_official({name: p.grad for name, p in network.named_parameters()})


def assert_norms_close(got, wanted):
    assert got.keys() == wanted.keys()
    # A bias that a norm takes out again has gradient zero, of which rounding alone remains: hence
    # a floor relative to the largest gradient.
    floor = 1e-6 * max(wanted.values())
    for name, norm in wanted.items():
        assert float(got[name].norm()) == pytest.approx(norm, rel=GRADIENT_TOLERANCE, abs=floor), (
            name
        )


def test_noised_samples_match(reference):
    data, _ = reference
    noisy = q_sample(
        pair(data, "main/x0"), data["main/t"], pair(data, "main/noise"), linear_schedule()
    )
    wanted = pair(data, "main/x_t")
    for modality in wanted.present:
        assert_close(noisy[modality], wanted[modality], 1e-6, modality)


def test_losses_and_every_gradient_of_the_main_network_match(reference, reference_coupled_unet):
    data, norms = reference
    network = reference_coupled_unet("unet_main")
    got = diffusion_loss(
        network,
        pair(data, "main/x0"),
        data["main/t"],
        pair(data, "main/noise"),
        linear_schedule(),
    )
    assert_terms_close(got, data, "main/loss.")
    found = gradients(network, got.loss)
    stored = [key for key in data if key.startswith("main/grad.")]
    assert stored
    for key in stored:
        assert_close(found[key.removeprefix("main/grad.")], data[key], GRADIENT_TOLERANCE, key)
    assert_norms_close(found, norms["main_grad_l2_norm"])


def test_losses_on_a_shortened_schedule_match(reference, reference_coupled_unet):
    data, _ = reference
    prefix = next((k.split("/")[0] for k in data if k.startswith("respaced")), None)
    if prefix is None:
        pytest.skip("respaced* is not in this set")
    with torch.no_grad():
        got = diffusion_loss(
            reference_coupled_unet("unet_main"),
            pair(data, "main/x0"),
            data[f"{prefix}/t"],
            pair(data, "main/noise"),
            respace(linear_schedule(), prefix.removeprefix("respaced")),
        )
    assert_terms_close(got, data, f"{prefix}/loss.")


@pytest.mark.parametrize("setting", ["mse", "rescaled_mse"])
def test_learned_variance_losses_and_gradient_norms_match(
    reference, reference_coupled_unet, setting
):
    data, norms = reference
    network = reference_coupled_unet("unet_variant")

    def denoiser(xt, timestep):
        return Prediction(*split_variance(network(xt, timestep)))

    got = diffusion_loss(
        denoiser,
        pair(data, "variant/x0"),
        data["variant/t"],
        pair(data, "variant/noise"),
        linear_schedule(),
        variance="learned_range",
        rescale_vb=setting.startswith("rescaled"),
    )
    assert_terms_close(got, data, f"variant/{setting}.loss.")
    assert_norms_close(gradients(network, got.loss), norms[f"variant_{setting}_grad_l2_norm"])
