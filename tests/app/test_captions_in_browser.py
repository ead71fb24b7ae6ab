"""The page of a model that knows classes and reads captions, in a real Chromium."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from soundreel.app.workshop import Workshop
from soundreel.checkpoints.text_encoder import TextConfig, text_encoder_sha256
from soundreel.clip import Clip
from soundreel.systems.mm_ldm.autoencoder import MultiModalAutoencoder
from soundreel.systems.mm_ldm.generator import Generator, GeneratorConfig
from soundreel.systems.mm_ldm.kl_vae import KLVAE
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.mm_ldm.settings import MMLDMSettings
from soundreel.systems.mm_ldm.tiny_preset import tiny

PATIENCE_MS = 120_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Gradio's own
]


@pytest.fixture
def workshop(text_encoders, tmp_path):
    """A toy model of the classes "dog" and "fire" that reads captions; every weight is random."""
    config, folder = tiny(), text_encoders / "clip"
    decoder = replace(config.autoencoder.model.decoder, num_classes=2)
    sizes = replace(config.autoencoder.model, decoder=decoder)
    generator = GeneratorConfig(
        latents=sizes.latents, width=32, depth=1, num_heads=2,
        context_dim=8, num_context_tokens=2, num_classes=2,
    )  # fmt: skip
    parts = {
        "first_stage": KLVAE(config.first_stage.model),
        "autoencoder": MultiModalAutoencoder(sizes),
        "generator": Generator(generator),
    }
    for module in parts.values():
        module.eval()
        for parameter in module.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    settings = MMLDMSettings(
        mel_image=config.mel_image,
        sampling=replace(config.sampling, num_steps=2),
        decoding=replace(config.decoding, num_steps=2),
        class_names=("dog", "fire"),
        text=TextConfig(folder=str(folder), sha256=text_encoder_sha256(folder), num_tokens=6),
    )
    return Workshop(MMLDMPipeline(clip=config.clip, settings=settings, **parts), tmp_path)


def test_captions_and_classes_are_what_the_clip_is_made_of(workshop, address, chromium, tmp_path):
    """Each clip of the page is the one that the same words give in Python; "any" is no class."""
    seen = []
    with chromium(viewport={"width": 1280, "height": 1000}) as context:
        tab = context.pages[0]
        tab.set_default_timeout(PATIENCE_MS)
        tab.goto(address)
        panel = tab.locator("[role=tabpanel]:visible").first
        panel.get_by_text("class dog, seed 0").wait_for()
        for label, text, about in (
            ("fire", "", "class fire, seed 0, steps"),
            ("fire", "a dog", 'class fire, "a dog", seed 0, steps'),
            ("any", " a dog ", '"a dog", seed 0, steps'),
            ("any", "", "seed 0, steps"),
        ):
            panel.get_by_label("Class").click()
            panel.get_by_role("option", name=label, exact=True).click()
            panel.get_by_label("Caption").fill(text)
            panel.get_by_role("button", name="Make").click()
            panel.get_by_text(re.compile("^" + re.escape(about))).wait_for()
            link = panel.locator("a[href*='soundreel.mp4']").get_attribute("href")
            made = tmp_path / f"{len(seen)}.mp4"
            made.write_bytes(tab.request.get(link).body())
            asked = {"label": None if label == "any" else label, "text": text.strip() or None}
            (clip,) = workshop.pipeline.generate(seed=0, **asked)
            clip.save(tmp_path / "own.mp4")
            own, shown = (
                Clip.load(path).frames.astype(float) for path in (tmp_path / "own.mp4", made)
            )
            assert np.abs(own - shown).mean() < 1
            seen.append(shown)
        tab.get_by_role("tab", name="Sound for a video").click()
        given = tab.locator("[role=tabpanel]:visible").first
        assert given.get_by_label("Class").input_value() == "any", "what is given says it itself"
        assert given.get_by_label("Caption").is_visible()
    for one, other in pairwise(seen):
        assert np.abs(one - other).mean() > 1, "every word changes the clip"


def test_a_model_without_classes_or_captions_has_no_fields_for_them(pipeline, tmp_path):
    pytest.importorskip("gradio", reason="needs pip install 'soundreel[app]'")
    from soundreel.app.fields import condition_fields

    fields = condition_fields(pipeline, given=False)
    assert [field.get_block_name() for field in fields] == ["state", "state"]
