"""`soundreel evaluate` and `soundreel sync` on rendered folders."""

import json
from fractions import Fraction

import numpy as np
import pytest

from soundreel.cli.clip_sources import clip_items, set_sha256
from soundreel.cli.evaluate import EvaluateArguments, evaluate
from soundreel.cli.render import RenderArguments, render
from soundreel.cli.sync import SyncArguments, moved, sync
from soundreel.clip import Clip
from soundreel.data.scenes.render import RenderOptions, render_clip
from soundreel.metrics.sync.score import measure_sync

SMALL = {"size": 32, "duration_s": 1.6, "frame_rate": "10", "workers": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(("real", "generated")):
        arguments = {"count": 6, "seed": seed, "kinds": ("bells", "rain"), **SMALL}
        render(RenderArguments(dest=root / name, **arguments))
    (root / "generated" / "bells" / "broken.mkv").write_bytes(b"nothing")
    return root


def test_evaluate_writes_the_same_report_twice(folders, weights_folder, capsys):
    outs = []
    for name in ("a.html", "b.html"):
        arguments = EvaluateArguments(
            ref=folders / "real",
            gen=folders / "generated",
            out=folders / name,
            metrics=("fad/yamnet",),
            weights={"yamnet": weights_folder / "audio" / "yamnet.safetensors"},
            num_shown=1,
        )
        assert evaluate(arguments) == 0
        outs.append((folders / name).with_suffix(".json").read_text())
    assert outs[0] == outs[1]
    result = json.loads(outs[0])
    assert result["num_generated"] == 6
    assert [s["name"] for s in result["skipped_generated"]] == ["bells/broken.mkv"]
    assert result["provenance"]["weights_sha256"]["yamnet"].startswith("9349c625")
    assert "fad/yamnet" in capsys.readouterr().out
    assert "broken.mkv" in (folders / "a.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gen": "real"}, "one folder"),
        ({"out": "report.pdf"}, "must end in .html"),
        ({"max_clips": 2}, "at least 3"),
        ({"metrics": ("fvd",)}, "no metric 'fvd'"),
        ({"metrics": ("fvd/i3d",)}, "fvd/i3d needs the weights of i3d"),
        ({"gen": "absent", "metrics": ()}, "no folder"),
    ],
)
def test_evaluate_refuses_what_makes_no_sense(folders, changes, message):
    paths = {"ref": "real", "gen": "generated", "out": "r.html"} | changes
    for key in ("ref", "gen", "out"):
        paths[key] = folders / paths[key]
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateArguments(**paths))


def test_the_reference_subset_is_drawn_by_the_seed(folders):
    chosen = [clip_items(folders / "real", "", 4, seed) for seed in (0, 0, 1)]
    assert [i.name for i in chosen[0]] == [i.name for i in chosen[1]]
    assert [i.name for i in chosen[0]] != [i.name for i in chosen[2]]
    assert set_sha256(chosen[0]) == set_sha256(chosen[1]) != set_sha256(chosen[2])
    assert {i.label for i in chosen[0]} == {"bells", "rain"}


def bells(offset_s=0.0):
    options = RenderOptions(
        num_frames=100, height=48, width=48, frame_rate=Fraction(25), kinds=("bells",)
    )
    clip = render_clip(options, 3, 0)
    true = Clip(clip.frames, clip.waveform, Fraction(25), 16_000)
    return Clip(clip.frames, moved(true, -offset_s), Fraction(25), 16_000)


def test_sync_names_the_offset_and_fixes_it(tmp_path, capsys):
    path = tmp_path / "late.mkv"
    bells(0.2).save(path)
    (tmp_path / "bad.mp4").write_bytes(b"x")
    assert sync(SyncArguments(files=(path,), fix=True, plot=True)) == 0
    out = capsys.readouterr().out
    assert "0.20 s late" in out or "0.19 s late" in out or "0.21 s late" in out
    fixed = Clip.load(tmp_path / "late.fixed.mp4")
    result = measure_sync(fixed.frames, fixed.frame_rate, fixed.waveform, fixed.sample_rate)
    assert abs(result.offset_s) < 0.04
    assert (tmp_path / "late.sync.svg").read_text().startswith("<svg xmlns")
    assert sync(SyncArguments(files=(tmp_path / "bad.mp4", path))) == 2
    captured = capsys.readouterr()
    assert "bad.mp4" in captured.err
    assert "late.mkv" in captured.out


def test_moved_sound_keeps_its_length():
    clip = bells()
    for shift in (0.3, -0.3, 9.0):
        wave = moved(clip, shift)
        assert wave.shape == clip.waveform.shape
    assert np.array_equal(moved(clip, 0.5)[:, :1000], clip.waveform[:, 8000:9000])
    assert not moved(clip, -0.5)[:, :8000].any()
