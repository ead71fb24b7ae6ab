"""Options of a model: exchanged by name, checked by what the field declares."""

from dataclasses import dataclass, fields

import pytest

from soundreel.errors import SoundreelError
from soundreel.protocols import option, with_options


@dataclass(frozen=True, kw_only=True)
class Options:
    num_steps: int = option(50, "Sampling steps.", low=1, high=100)
    guidance_scale: float | tuple[float, float] = option(2.0, "Guidance scale.", low=0.0)
    sampler: str = option("ddim", "Numerical method of sampling.", choices=("ddim", "ddpm"))


def test_only_what_is_given_is_exchanged():
    changed = with_options(Options(), {"num_steps": 7, "sampler": None})
    assert changed == Options(num_steps=7)
    assert with_options(Options(), {"guidance_scale": (1.0, 3.0)}).guidance_scale == (1.0, 3.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 3}, "steps; this model takes num_steps, guidance_scale, sampler"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"guidance_scale": (1.0, -1.0)}, "guidance_scale must be at least 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be at least 0"),
        ({"sampler": "euler"}, "sampler is one of ddim, ddpm, got 'euler'"),
    ],
)
def test_unknown_names_and_values_out_of_range_are_refused(changes, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        with_options(Options(), changes)


def test_the_message_also_names_what_can_be_given():
    with pytest.raises(SoundreelError, match="this model takes audio, video, num_steps"):
        with_options(Options(), {"label": 3}, ("video", "audio"))


def test_a_field_says_what_its_flag_and_its_page_field_need():
    assert fields(Options)[0].metadata["help"] == "Sampling steps."
    assert fields(Options)[0].metadata["high"] == 100
