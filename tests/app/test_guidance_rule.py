"""The page offers MM-Diffusion's published rule of guidance where it means something."""

import pytest
import torch

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.systems.joint_flow.config import JointFlowOptions
from soundreel.systems.mm_diffusion.options import MMDiffusionOptions


@pytest.fixture(scope="module")
def fields():
    return pytest.importorskip(
        "soundreel.app.fields", reason="needs pip install 'soundreel[app]'", exc_type=ImportError
    )


@pytest.fixture(scope="module")
def pipeline(pipeline):
    """A network whose answer depends on both modalities: a new one answers zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in pipeline.unet.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return pipeline


@pytest.fixture(scope="module")
def asked(fields):
    """The options that the page sends: its fields' values, some of them changed by a visitor."""
    defaults = MMDiffusionOptions()
    shown = fields.option_fields(defaults, given=True)
    values = {name: field.value for name, field in shown.items()}
    return lambda **chosen: fields.typed(defaults, values, (values | chosen).values())


def test_the_rule_and_its_scale_are_offered_beside_what_is_given_alone(fields):
    shown = fields.option_fields(MMDiffusionOptions(), given=True)
    rule, scale = shown["guidance_rule"], shown["official_scale"]
    assert [value for value, _ in rule.choices] == ["reconstruction", "official"]
    assert (rule.value, scale.value) == ("reconstruction", 3.0)
    alone = fields.option_fields(MMDiffusionOptions(), given=False)
    assert not {"guidance_rule", "official_scale"} & alone.keys()
    assert "guidance_rule" not in fields.option_fields(JointFlowOptions(), given=True)


def test_what_the_page_sends_makes_sound_by_the_official_rule(workshop, video, asked):
    how = {"video": video, "duration_s": 0.4, "seed": 5}
    few = {"num_steps": 2, "sampler": "ddpm"}
    made = workshop.film("anna", **how, **asked(**few, guidance_rule="official"))
    ours = workshop.film("anna", **how, **asked(**few))
    sounds = [Clip.load(one.clip).waveform for one in (made, ours)]
    assert sounds[0].shape == sounds[1].shape == (1, 6_400)
    assert (sounds[0] != sounds[1]).any()


def test_what_does_not_go_with_the_rule_is_said(workshop, video, asked):
    for chosen, words in (
        ({"guidance_rule": "official"}, "is defined for sampler ddpm"),
        ({"official_scale": 4.0}, "official_scale is of guidance_rule official"),
    ):
        with pytest.raises(SoundreelError, match=words):
            workshop.film("anna", video=video, duration_s=0.4, **asked(num_steps=2, **chosen))
