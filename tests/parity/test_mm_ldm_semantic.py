"""Projectors and heads against the reference tensors `semantic`."""

import pytest
import torch
from published_mm_ldm import (
    CLASS_HEAD,
    CONTRASTIVE_HEAD,
    PROJECTOR,
    load_official,
    projector_config,
)
from torch.nn import functional

from soundreel.systems.mm_ldm.official_keys import key_table, to_official
from soundreel.systems.mm_ldm.semantic import ClassHead, ContrastiveHead, Projector
from soundreel.types import AV


@pytest.fixture
def reference(mm_ldm_reference):
    return mm_ldm_reference("semantic")


def build(config, kind):
    if kind == "projector":
        return Projector(projector_config(config), config["in_channels"]), PROJECTOR
    if kind == "classify_head":
        return ClassHead(config["in_channels"], config["num_class"]), CLASS_HEAD
    return ContrastiveHead(config["in_channels"], config["model_channels"]), CONTRASTIVE_HEAD


def loaded(reference, name):
    module, rules = build(
        reference.config[name], name.removeprefix("video_").removeprefix("audio_")
    )
    load_official(module.eval(), reference.weights(f"param_{name}"), rules)
    return module


@pytest.fixture
def semantic(reference):
    return AV(reference["out/grid_video"], reference["out/grid_audio"])


@torch.no_grad()
@pytest.mark.parametrize("modality", ["video", "audio"])
def test_projectors_agree_as_grid_and_pooled(reference, modality):
    projector = loaded(reference, f"{modality}_projector")
    latent = reference[f"in/{modality}_latent"]
    reference.check(projector(latent), f"out/grid_{modality}")
    reference.check(projector.pooled(latent), f"out/pooled_{modality}")


@torch.no_grad()
def test_class_head_agrees(reference, semantic):
    logits = loaded(reference, "classify_head")(semantic)
    reference.check(logits, "out/class_logits")
    loss = functional.cross_entropy(logits, reference["in/class_ids"])
    reference.check(loss, "out/class_loss", mark=2e-5)


@torch.no_grad()
def test_contrastive_head_agrees_on_one_process(reference, semantic):
    head = loaded(reference, "contrastive_head")
    features = head(semantic)
    reference.check(features["video"], "out/contrast_video_feature")
    reference.check(features["audio"], "out/contrast_audio_feature")
    reference.check(head.loss(semantic), "out/contrastive_loss", mark=2e-5)


@torch.no_grad()
def test_contrastive_loss_of_each_rank_agrees(reference, semantic):
    head = loaded(reference, "contrastive_head")
    features = head(semantic)
    ranks = [key for key in reference.tensors if key.startswith("out/rank_loss_")]
    size = semantic.batch_size // len(ranks)
    for rank in range(len(ranks)):
        own = features.rows(slice(rank * size, (rank + 1) * size))
        loss = head.info_nce(own, features, first_row=rank * size)
        reference.check(loss, f"out/rank_loss_{rank}", mark=2e-5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("video_projector", "projector"),
        ("audio_projector", "projector"),
        ("classify_head_landscape", "classify_head"),
        ("classify_head_aist", "classify_head"),
        ("contrastive_head", "contrastive_head"),
    ],
)
def test_full_size_has_the_published_parameters(mm_ldm_full_keys, name, kind):
    full = mm_ldm_full_keys(name)
    with torch.device("meta"):
        module, rules = build(full["config"], kind)
    assert sum(p.numel() for p in module.parameters()) == full["parameters"]
    assert set(key_table(module, rules).values()) == set(full["shapes"])
    exported = to_official(module, rules, full["shapes"])
    assert {key: list(value.shape) for key, value in exported.items()} == full["shapes"]
