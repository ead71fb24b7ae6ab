"""The page on extending, run as it stands: its toy system becomes a model like any other."""

import gc
import re
import shlex
import sys
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import soundreel
from soundreel import systems
from soundreel.app.workshop import Workshop
from soundreel.cli.main import run
from soundreel.clip import Clip
from soundreel.data.options import PrepareOptions
from soundreel.data.prepare import prepare_dataset
from soundreel.protocols import Pipeline

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def block(kind: str) -> str:
    (text,) = [text for found, text in BLOCK.findall(PAGE.read_text()) if found == kind]
    return text


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Path:
    """A folder with the page's module in the list of systems, and a small data set."""
    (tmp_path / "toy_of_the_page.py").write_text(block("python"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(systems.SYSTEMS, "toy", "toy_of_the_page")
    rng = np.random.default_rng(0)
    (tmp_path / "videos").mkdir()
    for index in range(4):
        frames = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
        sound = rng.uniform(-0.5, 0.5, (1, 9_600)).astype(np.float32)
        path = tmp_path / "videos" / f"{index}.mkv"
        Clip(frames, sound, Fraction(10), 8_000).save(path)
    options = PrepareOptions(height=16, width=16, sample_rate=8_000, min_duration_s=1.0)
    prepare_dataset(tmp_path / "videos", tmp_path / "data", options, num_workers=0)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("toy_of_the_page", None)


def test_the_line_of_the_list_is_as_the_page_shows():
    name, module = re.fullmatch(r'\s*"(.+)": "(.+)",\s*', block("text")).groups()
    assert name == "toy"
    assert module.rpartition(".")[0] == "soundreel.systems"
    lines = Path(systems.__file__).read_text().splitlines()
    assert any(re.fullmatch(r'    "[\w-]+": "soundreel\.systems\.[\w.]+",', line) for line in lines)


def test_the_toy_of_the_page_becomes_a_model_like_any_other(toy, capsys):
    train, *others = block("bash").splitlines()
    # The command line's own placeholders for --data and --out would fail the tests' type checks.
    assert train == "soundreel train toy-tiny --data data --out run"
    module = import_module("toy_of_the_page")
    assert "toy-tiny" in systems.preset_names()
    assert module.train(systems.preset("toy-tiny"), Path("data"), Path("run"))

    told = {}
    for line in others:
        words = shlex.split(line)
        assert run(words[1:]) == 0, line
        told[words[1]] = capsys.readouterr().out
    assert "system: toy" in told["info"]
    assert {path.name for path in Path("clips").glob("*.mp4")} == {"clip-0000.mp4", "clip-0001.mp4"}
    assert Path("page/index.html").is_file()
    assert "fad/yamnet" in told["evaluate"]
    assert Path("report.html").is_file()


def test_the_toy_answers_as_a_pipeline_does(toy):
    module = import_module("toy_of_the_page")
    assert module.train(systems.preset("toy-tiny"), Path("data"), Path("run"))
    pipe = soundreel.load("run/model", device="cpu")
    assert isinstance(pipe, Pipeline)
    once, again = pipe.generate(count=2, seed=3)[1], pipe.generate(seed=4)[0]
    assert np.array_equal(once.frames, again.frames)
    sound = pipe.generate(video="videos/0.mkv", num_steps=2)[0]
    assert np.array_equal(sound.frames, Clip.load("videos/0.mkv").frames[:10])
    with pytest.raises(ValueError, match="this model takes audio, video, num_steps, sampler"):
        pipe.generate(guidance_scale=2.0)
    made = Workshop(pipe, toy).generate("anna", num_steps=2)
    assert Clip.load(made.clip).num_frames == 10
    heard = Workshop(pipe, toy).film("anna", video="videos/0.mkv", num_steps=2)
    assert Clip.load(heard.clip).num_frames == 10, "a model without films makes a whole clip"


@pytest.mark.filterwarnings("ignore")  # Gradio's own
def test_the_page_offers_the_toys_own_options(toy):
    gradio = pytest.importorskip("gradio", reason="needs pip install 'soundreel[app]'")
    from soundreel.app.fields import option_fields

    with gradio.Blocks():
        fields = option_fields(import_module("toy_of_the_page").ToyOptions(), given=False)
    assert {name: field.value for name, field in fields.items()} == {
        "num_steps": 4,
        "sampler": "ddim",
    }
    del fields
    gc.collect()  # what Gradio leaves open is to be found here, where its warnings are ignored
