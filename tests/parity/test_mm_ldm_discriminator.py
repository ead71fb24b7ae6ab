"""The discriminator, its batches and its losses against the reference tensors `discriminator`."""

import pytest
import torch
from published_mm_ldm import DISCRIMINATOR, discriminator_config, load_official

from soundreel.systems.mm_ldm.discriminator import (
    Discriminator,
    discriminator_batch,
    hinge_loss,
    triples,
)
from soundreel.systems.mm_ldm.official_keys import key_table, to_official


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("discriminator")


@pytest.fixture
def model(reference):
    model = Discriminator(discriminator_config(reference.config)).eval()
    load_official(model, reference.weights(), DISCRIMINATOR)
    return model


def triple(reference, kind):
    audio = reference[f"in/{kind}_audio"]
    frames = reference[f"in/{kind}_video"].unflatten(0, (len(audio), -1))
    return triples(audio, frames[:, 0], frames[:, -1])


@torch.no_grad()
def test_generator_side_agrees(reference, model):
    logits = model(triple(reference, "fake"))
    labels = torch.ones(len(logits))
    reference.check(logits, "out/generator_logits")
    reference.check(labels, "out/generator_labels", mark=0.0)
    reference.check(hinge_loss(logits, labels), "out/generator_loss", mark=2e-5)


@torch.no_grad()
def test_discriminator_side_agrees(reference, model):
    batch, labels = discriminator_batch(triple(reference, "real"), triple(reference, "fake"))
    logits = model(batch)
    reference.check(labels, "out/discriminator_labels", mark=0.0)
    reference.check(logits, "out/discriminator_logits")
    reference.check(hinge_loss(logits, labels), "out/discriminator_loss", mark=2e-5)


def test_full_size_has_the_published_parameters(mm_ldm_full_keys):
    full = mm_ldm_full_keys("discriminator")
    with torch.device("meta"):
        model = Discriminator(discriminator_config(full["config"]))
    assert sum(p.numel() for p in model.parameters()) == full["parameters"]
    assert set(key_table(model, DISCRIMINATOR).values()) == set(full["shapes"])
    exported = to_official(model, DISCRIMINATOR, full["shapes"])
    assert {key: list(value.shape) for key, value in exported.items()} == full["shapes"]
