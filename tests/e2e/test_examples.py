"""Every script in `examples` does what its first lines promise."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from soundreel import Clip

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
CLIPS = EXAMPLES / "clips"


@pytest.fixture(scope="module")
def run(python):
    """`run(name, *arguments)`: lines that an example printed."""

    def call(name: str, *arguments: object) -> list[str]:
        done = python(EXAMPLES / name, *arguments, env={"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"
        return done.stdout.splitlines()

    return call


def test_no_example_is_forgotten_here():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    tested = Path(__file__).read_text()
    assert names
    assert {name for name in names if f'"{name}"' not in tested} == set()


def test_examples_are_short():
    assert max(len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")) <= 60


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the example clips, and what the training example makes of them."""
    root = tmp_path_factory.mktemp("trained")
    for kind in ("city", "water"):
        (root / "videos" / kind).mkdir(parents=True)
        source = CLIPS / kind / f"{kind}-1.mp4"
        (root / "videos" / kind / source.name).symlink_to(source)
    lines = run("train_on_a_folder.py", root / "videos", root / "out", 4)
    assert lines[0] == "2 clips, 0 left out"
    assert lines[-1] == f"finished; model in {root / 'out' / 'run' / 'model'}"
    return root / "out" / "run"


def test_a_folder_can_be_trained_on_from_python(trained):
    assert (trained / "model" / "model_index.json").is_file()
    assert (trained / "previews" / "000000004.png").is_file()


def test_clips_can_be_generated_from_python(run, trained, tmp_path):
    lines = run("generate.py", trained / "model", tmp_path / "out", 1)
    assert lines[0].startswith("0: 1.60 s, sound at ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0.mp4", "0.mkv", "all.png"}


def test_a_piece_of_a_video_is_drawn_over_its_sound(run, tmp_path):
    lines = run("look_at_a_clip.py", CLIPS / "city" / "city-1.mp4", tmp_path / "out.png", 0.5, 1)
    assert lines[0].endswith(" 1.000 s")
    assert lines[1] == "video (1, 10, 3, 64, 64), audio (1, 1, 16000)"
    with Image.open(tmp_path / "out.png") as picture:
        assert np.asarray(picture).std() > 10


def test_the_default_sampler_comes_out_close_in_the_comparison(run):
    lines = run("compare_samplers.py", 20)
    values = {name: (float(mean), float(std)) for name, mean, std in map(str.split, lines[1:])}
    assert values["dpm-solver++"][0] == pytest.approx(0.3, abs=0.003)
    assert values["dpm-solver++"][1] == pytest.approx(0.2, rel=0.03)
    assert values["ddim"][1] < 0.16


def test_a_silent_video_gets_takes_of_sound(run, tmp_path):
    video = CLIPS / "water" / "water-1.mp4"
    lines = run("video_to_audio.py", "default", video, tmp_path / "out", 2)
    assert [line.split(",")[0] for line in lines] == ["take 0: 3.49 s", "take 1: 3.49 s"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"take-0.mp4", "take-1.mp4", "takes.png"}


def test_a_new_scene_sounds_when_its_events_happen(run, tmp_path):
    (line,) = run("add_a_scene.py", tmp_path, 1)
    times = [float(word) for word in line.split()[1:]]
    sound = Clip.load(tmp_path / "0.mp4").waveform[0]
    levels = [
        [float(np.abs(sound[int(16_000 * (t + a)) : int(16_000 * (t + b))]).mean())]
        for t in times
        for a, b in ((-0.05, -0.01), (0.01, 0.05))
    ]
    before, after = np.array(levels[::2]), np.array(levels[1::2])
    assert (after > 2 * before).all()


@pytest.mark.slow
def test_the_better_of_two_sets_is_named_and_no_winner_among_equals(run, python, tmp_path):
    """Against scenes of one seed: scenes of another seed, and the same ones in grey and shaken."""
    options = {
        "real": ("--seed", 1),
        "alike": ("--seed", 2),
        "other": ("--seed", 3, "--colour", "grey", "--camera-shake", 0.2, "--offscreen-sounds", 6),
    }
    for name, words in options.items():
        done = python(
            *("-m", "soundreel", "render", tmp_path / name, "--count", "22", "--workers", "0"),
            *("--size", "64", "--frame-rate", "10", "--duration-s", "1.6", *words),
        )
        assert done.returncode == 0, done.stderr
    lines = run("evaluate_two_models.py", *(tmp_path / name for name in ("real", "alike", "other")))
    kvd = [line for line in lines if line.startswith("kvd")]
    assert len(lines) == 6
    assert float(kvd[0].split()[2]) < float(kvd[1].split()[2])
    assert kvd[2].split()[1:] == ["alike"]
