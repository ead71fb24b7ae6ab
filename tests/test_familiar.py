"""What people know from elsewhere: lists, a bar, names of `diffusers`, short texts of objects."""

from fractions import Fraction

import numpy as np
import pytest
import torch

import soundreel
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.familiar import familiar, familiar_names
from soundreel.films import Films
from soundreel.systems import all_systems

CLIP = Clip(np.zeros((1, 8, 8, 3), np.uint8), None, Fraction(10))


class Pipeline:
    """Notes what it is asked for and tells of two steps a clip."""

    def __init__(self):
        self.asked = []

    @familiar
    def generate(self, *, count=1, seed=0, progress=None, **others):
        """Return clips."""
        self.asked.append({"count": count, "seed": seed, **others})
        for done in range(1, 2 * count + 1):
            if progress is not None:
                progress(done, 2 * count)
        return [CLIP] * count

    @familiar_names
    def stream(self, **asked):
        return asked


@pytest.fixture
def pipe():
    return Pipeline()


def test_names_paths_and_lists_give_a_clip_for_each_entry(pipe, tmp_path):
    videos = ["talk.mp4", tmp_path / "walk.mp4"]
    told = []
    clips = pipe.generate(
        label=["fire", "rain"], video=videos, count=2, seed=5, progress=lambda *x: told.append(x)
    )
    assert len(clips) == 4
    assert pipe.asked == [
        {"count": 2, "seed": 5, "label": "fire", "video": videos[0]},
        {"count": 2, "seed": 7, "label": "rain", "video": videos[1]},
    ]
    assert told == [(done, 8) for done in range(1, 9)]
    pipe.generate(label="fire", video="talk.mp4")
    assert pipe.asked[-1] == {"count": 1, "seed": 0, "label": "fire", "video": "talk.mp4"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"label": ["fire", "rain"], "video": ["a.mp4"]}, "got 2 of label and 1 of video"),
        ({"label": []}, "are not empty; got 0 of label"),
        ({"num_steps": 3, "num_inference_steps": 3}, "num_inference_steps and num_steps say the"),
        ({"seed": 3, "generator": torch.Generator()}, "generator and seed say the same"),
        ({"generator": 3}, "generator is one torch.Generator, got 3"),
    ],
)
def test_what_does_not_fit_together_is_said(pipe, asked, words):
    with pytest.raises(SoundreelError, match=words):
        pipe.generate(**asked)
    assert not pipe.asked


def test_the_names_of_diffusers_are_understood(pipe):
    pipe.generate(num_inference_steps=7)
    assert pipe.asked[-1] == {"count": 1, "seed": 0, "num_steps": 7}
    for _ in range(2):
        state = torch.Generator().manual_seed(1)
        pipe.generate(generator=state)
        pipe.generate(generator=state)
    seeds = [asked["seed"] for asked in pipe.asked[1:]]
    assert seeds[:2] == seeds[2:], "the same state gives the same clips"
    assert seeds[0] != seeds[1], "the state moves on"
    assert pipe.stream(num_inference_steps=2, generator=None) == {"num_steps": 2}


def test_progress_true_shows_a_bar(pipe, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipe.generate(label=["fire", "rain"], progress=True)
    assert "4/4" in capsys.readouterr().err
    pipe.generate(progress=False)
    monkeypatch.delenv("FORCE_COLOR")
    pipe.generate(progress=True)
    assert capsys.readouterr().err == "", "silent where it is written to a file"


def test_every_system_that_generates_takes_them_and_steps_have_one_name():
    for system in all_systems():
        assert "num_steps" in system.options.__dataclass_fields__
    pipelines = Films.__subclasses__()
    assert {p.__name__ for p in pipelines} >= {"MMLDMPipeline", "MMDiffusionPipeline"}
    for pipeline in pipelines:
        with pytest.raises(SoundreelError, match=r"one torch\.Generator"):
            pipeline.generate(None, generator=3)


@pytest.fixture(scope="module")
def model():
    return soundreel.load(device="cpu")


def test_the_model_that_comes_along_does_what_the_page_says(model, tmp_path):
    """As docs/api.md begins: a class and a file by their names, then the other vocabulary."""
    few = {"num_inference_steps": 1}
    soundreel.render("fire", num_frames=16, height=64, width=64).save(tmp_path / "talk.mp4")
    (clip,) = model.generate(label="fire", video=str(tmp_path / "talk.mp4"), **few)
    assert (clip.num_frames, clip.num_samples) == (16, 25_600)
    both = model.generate(label=["fire", "rain"], seed=3, **few)
    (rain,) = model.generate(label="rain", seed=4, num_steps=1)
    assert (both[1].frames == rain.frames).all()
    with pytest.raises(SoundreelError, match=r"option stepps; this model takes .*num_steps"):
        model.generate(stepps=3)


def test_texts_of_objects_are_short(model):
    assert repr(model) == (
        "JointFlowPipeline(2 s, 64x64 pixels, 16000 Hz; takes after, audio, between, label, video)"
    )
    assert len(repr(CLIP)) < 100
    assert CLIP._repr_html_().startswith('<video controls loop width="256" src=')
    assert set(dir(soundreel)) >= {"Clip", "load", "render"}
