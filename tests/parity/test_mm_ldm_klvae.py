"""The first stage against the reference tensors `klvae`."""

import pytest
import torch
from published_mm_ldm import kl_vae_config, load_official

from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.official_keys import KL_VAE_COMPVIS, key_table, to_official


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("klvae")


@pytest.fixture
def model(reference):
    model = KLVAE(kl_vae_config(reference.config)).eval()
    load_official(model, reference.weights(), KL_VAE_COMPVIS)
    return model


@torch.no_grad()
def test_posterior_and_latent_agree(reference, model):
    posterior = model.posterior(reference["in/image"])
    reference.check(posterior.mean, "out/mean")
    reference.check(posterior.logvar, "out/logvar")
    reference.check(posterior.kl(), "out/kl")
    latent = model.encode(reference["in/image"], reference["in/noise"])
    reference.check(latent, "out/scaled_latent")


@torch.no_grad()
def test_decoded_image_agrees(reference, model):
    """The stored latent is the unscaled one."""
    image = model.decode(reference["in/latent"] * model.config.latent_scale)
    reference.check(image, "out/decoded")


def test_weights_go_back_under_their_published_names(reference, model):
    published = reference.weights()
    exported = to_official(model, KL_VAE_COMPVIS, {k: v.shape for k, v in published.items()})
    assert exported.keys() == published.keys()
    assert all(torch.equal(exported[key], published[key]) for key in published)


def test_full_size_has_the_published_parameters(mm_ldm_full_keys):
    full = mm_ldm_full_keys("klvae")
    with torch.device("meta"):
        model = KLVAE(kl_vae_config(full["config"]))
    assert sum(p.numel() for p in model.parameters()) == full["parameters"]
    assert set(key_table(model, KL_VAE_COMPVIS).values()) == set(full["shapes"])
    exported = to_official(model, KL_VAE_COMPVIS, full["shapes"])
    assert {key: list(value.shape) for key, value in exported.items()} == full["shapes"]
