"""`soundreel demo`: a page of clips, with a model without classes."""

from pathlib import Path

from soundreel.cli.main import run
from soundreel.clip import Clip

WATER = Path(__file__).resolve().parents[2] / "examples/clips/water/water-1.mp4"


def demo(*words) -> int:
    return run(["demo", *map(str, words)])


def test_a_model_without_classes_is_shown_as_it_is(small_run, tmp_path, capsys):
    page = tmp_path / "page"
    assert demo(small_run / "model", "--out", page) == 0
    names = [f"{n:02d}-clip-{n}" for n in range(1, 5)]
    wanted = {f"{name}{end}" for name in names for end in (".mp4", ".png")} | {"index.html"}
    assert {path.name for path in page.iterdir()} == wanted
    assert str(page / "index.html") in capsys.readouterr().out
    text = (page / "index.html").read_text()
    for name in names:
        assert f'<a download href="{name}.mp4">Download</a>' in text
        assert f'<video src="{name}.mp4" controls loop playsinline poster="data:image/' in text


def test_a_given_clip_gets_sound_and_pictures(tmp_path):
    page = tmp_path / "page"
    assert demo("--out", page, "--given", WATER) == 0
    for name in ("05-sound-for-a-video", "06-pictures-for-a-sound"):
        clip = Clip.load(page / f"{name}.mp4")
        assert clip.frames is not None
        assert clip.waveform is not None
    assert "Given: the pictures, of water-1.mp4" in (page / "index.html").read_text()


def test_what_cannot_be_shown_is_one_line_and_leaves_nothing(small_run, tmp_path, capsys):
    model = small_run / "model"
    (tmp_path / "file").write_text("x")
    assert demo(model, "--out", tmp_path / "file") == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    assert demo(model, "--out", tmp_path / "page", "--given", tmp_path / "no.mp4") == 2
    assert "no.mp4" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()
