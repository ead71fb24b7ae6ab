"""Captions that a model is evaluated with."""

import pytest

from soundreel.cli.clip_sources import _requests
from soundreel.cli.main import run
from soundreel.cli.prompts import find_prompts
from soundreel.data.manifest import load_manifest
from soundreel.errors import SoundreelError


def test_a_list_is_taken_in_its_order(tmp_path):
    (tmp_path / "a.txt").write_text("a dog \n\n a sea\n")
    assert find_prompts(tmp_path / "a.txt", tmp_path, "", 0) == ("a dog", "a sea")
    (tmp_path / "a.csv").write_text('source,caption\nx,"dog, fire"\ny,sea\n')
    assert find_prompts(tmp_path / "a.csv", tmp_path, "", 0) == ("dog, fire", "sea")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "source,words\nx,dog\n", "needs a column caption"),
        ("a.csv", "caption\n\n", "holds no caption"),
        ("a.txt", " \n", "holds no caption"),
        ("absent.txt", None, "cannot be read as captions"),
    ],
)
def test_what_is_no_list_is_named(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(SoundreelError, match=f"{name}: .*{words}"):
        find_prompts(tmp_path / name, tmp_path, "", 0)


def test_the_captions_of_the_real_clips_are_shuffled_by_the_seed(small_dataset, tmp_path):
    assert find_prompts(None, small_dataset, "", 0) == ()
    sources = sorted({record.source for record in load_manifest(small_dataset)})
    data = tmp_path / "data"
    data.mkdir()
    for path in small_dataset.iterdir():
        (data / path.name).symlink_to(path)
    rows = "".join(f"{source},words of {source}\n" for source in sources[1:])
    (data / "captions.csv").write_text("source,caption\n" + rows)
    orders = {find_prompts(None, data, "", seed) for seed in range(9)}
    expected = sorted(
        f"words of {r.source}" for r in load_manifest(data) if r.source in sources[1:]
    )
    assert all(sorted(order) == expected for order in orders)
    assert len(orders) > 1


def test_each_sample_is_asked_for_a_caption_in_turn():
    request = _requests((), ("dog", "sea"), {"precision": "float32"})
    assert [request(index)["text"] for index in range(3)] == ["dog", "sea", "dog"]
    assert request(0)["precision"] == "float32"
    assert _requests(("a", "b"), (), {})(3) == {"label": 1}


def test_captions_for_what_reads_none_are_refused(small_dataset, small_run, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("a dog\n")
    words = ["--prompts", str(tmp_path / "a.txt"), "--out", str(tmp_path / "report.html")]
    words += ["--duration-s", "0.4"]
    assert run(["evaluate", str(small_dataset), str(small_run / "model"), *words]) == 2
    assert "was trained without captions; leave --prompts out" in capsys.readouterr().err
    folder = small_dataset.parent / "videos"
    assert run(["evaluate", str(small_dataset), str(folder), *words]) == 2
    assert "--prompts is for a model; GEN holds clips already" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
