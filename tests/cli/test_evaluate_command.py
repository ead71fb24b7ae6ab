"""`soundreel evaluate` on rendered folders."""

import json
import os
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from soundreel.checkpoints.store import load_model_index, save_model_index
from soundreel.cli.clip_sources import clip_items, media_files, set_sha256
from soundreel.cli.evaluate import EvaluateArguments, evaluate
from soundreel.cli.main import run
from soundreel.cli.render import RenderArguments, render
from soundreel.clip import Clip
from soundreel.data.shards import ShardReader
from soundreel.diffusion.config import DiffusionConfig
from soundreel.errors import SoundreelError
from soundreel.media.errors import MediaError
from soundreel.metrics.extractors import PACKAGED_WEIGHTS
from soundreel.metrics.measure import measure_set
from soundreel.metrics.report import ShownClip
from soundreel.metrics.weights import file_sha256
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNet, CoupledUNetConfig
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline, MMDiffusionSettings
from soundreel.types import ClipSpec

SMALL = {"size": 32, "duration_s": 1.6, "frame_rate": "10", "workers": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for seed, name in enumerate(("real", "generated")):
        arguments = {"count": 6, "seed": seed, "kinds": ("bells", "rain"), **SMALL}
        render(RenderArguments(dest=root / name, **arguments))
    (root / "generated" / "bells" / "broken.mkv").write_bytes(b"nothing")
    return root


def test_evaluate_writes_the_same_report_twice_with_what_the_package_brings(folders, capsys):
    outs = []
    for name in ("a.html", "b.html"):
        arguments = EvaluateArguments(
            ref=folders / "real",
            gen=folders / "generated",
            out=folders / name,
            metrics=("fad/yamnet",),
            num_shown=1,
        )
        assert evaluate(arguments) == 0
        outs.append((folders / name).with_suffix(".json").read_text())
    assert outs[0] == outs[1]
    result = json.loads(outs[0])
    assert result["num_generated"] == 6
    assert [s["name"] for s in result["skipped_generated"]] == ["bells/broken.mkv"]
    digest = file_sha256(PACKAGED_WEIGHTS["yamnet"])
    assert result["provenance"]["weights_sha256"] == {"yamnet": digest}
    assert result["copies"]["known"] == "real"
    assert "fad/yamnet" in capsys.readouterr().out
    assert "broken.mkv" in (folders / "a.html").read_text()


NUM_WINDOW = 12  # frames: 1.2 s at the rate of the small data set, enough to measure sync


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """A Coupled U-Net of random weights that makes clips of 1.2 s."""
    generator = torch.Generator().manual_seed(0)
    config = CoupledUNetConfig(
        num_frames=NUM_WINDOW,
        width=8,
        channel_mult=(1, 2),
        num_res_blocks=1,
        video_attention_factors=(),
        cross_attention_factors=(2,),
        cross_attention_windows=(2,),
        num_heads=1,
        cross_head_width=0,
        num_groups=4,
        dropout=0.0,
    )
    unet = CoupledUNet(config)
    for parameter in unet.parameters():  # all of them: some start at zero
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    clip = ClipSpec(
        num_frames=NUM_WINDOW, height=16, width=16, frame_rate=Fraction(10), sample_rate=8_000
    )
    settings = MMDiffusionSettings(diffusion=DiffusionConfig(prediction_type="v"), num_steps=2)
    folder = tmp_path_factory.mktemp("models") / "model"
    MMDiffusionPipeline(unet, clip, settings).save(folder)
    return folder


def test_a_prepared_set_is_compared_with_samples_of_a_model(small_dataset, small_model, tmp_path):
    results = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        arguments = EvaluateArguments(
            ref=small_dataset,
            gen=small_model,
            out=tmp_path / f"{name}.html",
            metrics=("fad/yamnet",),
            duration_s=1.2,
            max_clips=3,
            num_shown=0,
            seed=seed,
        )
        assert evaluate(arguments) == 0
        results.append((tmp_path / f"{name}.json").read_text())
    assert results[0] == results[1]
    first, other = json.loads(results[0]), json.loads(results[2])
    names = {n["generated"] for n in first["copies"]["sound"]["neighbours"]}
    assert names == {"sample-000003", "sample-000004", "sample-000005"}
    assert first["metrics"][0]["overall"]["num_fake"] == 3
    assert first["metrics"][0]["overall"]["value"] != other["metrics"][0]["overall"]["value"]
    assert first["sync_generated"]["unmeasured"] == 0


def test_samples_are_hashed_with_the_weights_that_made_them(small_model, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(small_model, again)
    assert set_sha256(clip_items(again, "", 2, 0)) == set_sha256(clip_items(small_model, "", 2, 0))
    weights = again / "unet" / "model.safetensors"
    state = load_file(weights)
    state[sorted(state)[0]] += 1
    save_file(state, weights)
    save_model_index(again, load_model_index(again))  # a new checksum
    assert set_sha256(clip_items(again, "", 2, 0)) != set_sha256(clip_items(small_model, "", 2, 0))


def test_a_model_of_too_short_clips_is_refused_before_it_is_sampled(small_model, small_run):
    with pytest.raises(ValueError, match=r"makes clips of 1.2 s, and --duration-s is 1.6"):
        clip_items(small_model, "", 3, 0, duration_s=1.6)
    with pytest.raises(ValueError, match=r"is a training run; its model is .*model"):
        clip_items(small_run, "", 3, 0)


def test_a_split_that_a_prepared_set_lacks_is_named(small_dataset):
    with pytest.raises(ValueError, match=r"no clips in split 'tset'; its splits: "):
        clip_items(small_dataset, "tset", None, 0)


def test_damaged_clips_of_a_prepared_set_are_listed(small_dataset, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(small_dataset, damaged)
    for shard in (damaged / "shards").iterdir():
        shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"none of 3 clips could be measured.*ends before clip"):
        measure_set(clip_items(damaged, "", None, 0), [], 1.2, Fraction(10), lambda *_: None)


def test_no_file_however_broken_ends_an_evaluation(hostile_folder):
    folder = next(iter(hostile_folder.values())).parent
    items = clip_items(folder, "", None, 0)
    measured = measure_set(items, [], 0.4, Fraction(10), lambda *_: None)
    assert len(measured.names) + len(measured.skipped) == len(items)
    assert measured.names
    assert measured.skipped


def test_copies_are_looked_for_in_the_training_set(folders, tmp_path, capsys):
    train, gen = tmp_path / "train", tmp_path / "gen"
    render(RenderArguments(dest=train, count=6, seed=5, kinds=("bells", "rain"), **SMALL))
    shutil.copytree(folders / "generated", gen)
    copied = media_files(train)[0].path
    shutil.copy(copied, gen / f"copied{copied.suffix}")
    arguments = EvaluateArguments(
        ref=folders / "real",
        gen=gen,
        train=train,
        out=tmp_path / "report.html",
        metrics=(),
        num_shown=2,
    )
    assert evaluate(arguments) == 0
    result = json.loads((tmp_path / "report.json").read_text())
    for modality in ("picture", "sound"):
        nearest = result["copies"][modality]["neighbours"][0]
        assert nearest["generated"] == f"copied{copied.suffix}"
        assert nearest["known"] == str(copied.relative_to(train))
        assert nearest["distance"] == 0
    assert result["provenance"]["training"]["found"] == 6
    assert "nearest training clip" in capsys.readouterr().out
    assert "Nearest training clips by sound" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gen": "real"}, "one folder"),
        ({"out": "report.pdf"}, "must end in .html"),
        ({"max_clips": 2}, "at least 3"),
        ({"metrics": ("fvd",)}, "no metric 'fvd'"),
        ({"metrics": ("fvd/i3d",)}, "fvd/i3d needs the official weights of i3d"),
        ({"gen": "absent", "metrics": ()}, "no folder"),
        ({"train": "generated"}, "--train and GEN are one folder"),
        ({"train": "real"}, "--split test"),
        ({"weights": {"yamnett": Path("f")}}, "--weights yamnett"),
    ],
)
def test_evaluate_refuses_what_makes_no_sense(folders, changes, message):
    paths = {"ref": "real", "gen": "generated", "out": "r.html"} | changes
    for key in {"ref", "gen", "out", "train"} & set(paths):
        paths[key] = folders / paths[key]
    with pytest.raises(ValueError, match=message):
        evaluate(EvaluateArguments(**paths))


def test_a_report_that_is_there_is_replaced_only_when_that_is_asked_for(folders):
    paths = {"ref": folders / "real", "gen": folders / "generated", "metrics": ("fad/yamnet",)}
    out = folders / "new" / "mine.html"
    out.parent.mkdir()
    for mine in (out, out.with_suffix(".json")):
        mine.write_text("mine")
        with pytest.raises(SoundreelError, match=rf"{mine.name} is there already.*--overwrite"):
            evaluate(EvaluateArguments(out=out, **paths))
        assert [path.read_text() for path in out.parent.iterdir()] == ["mine"]
        mine.unlink()
    out.write_text("mine")
    assert evaluate(EvaluateArguments(out=out, overwrite=True, num_shown=0, **paths)) == 0
    assert "<h1>Evaluation of generated against real</h1>" in out.read_text()


@pytest.mark.slow
def test_memory_does_not_follow_the_size_of_the_pictures(tmp_path, peak_mb):
    """Three clips a side, of noise blocks: first of 320x180 pixels, then of 1920x1080."""
    used_mb = []
    for scale in (20, 120):
        sides = [tmp_path / f"{name}{scale}" for name in ("real", "generated")]
        for side in sides:
            side.mkdir()
            for index in range(3):
                rng = np.random.default_rng([index, side is sides[0]])
                blocks = rng.integers(0, 256, (20, 9, 16, 3), dtype=np.uint8)
                frames = blocks.repeat(scale, axis=1).repeat(scale, axis=2)
                sound = rng.normal(0, 0.1, (1, 32_000)).astype(np.float32)
                Clip(frames, sound, Fraction(10), 16_000).save(side / f"{index}.mp4")
        out = tmp_path / f"{scale}.html"
        used_mb.append(peak_mb("evaluate", *sides, "--out", out))
    print(used_mb)
    assert used_mb[1] < used_mb[0] + 120


def test_the_reference_subset_is_drawn_by_the_seed(folders):
    chosen = [clip_items(folders / "real", "", 4, seed) for seed in (0, 0, 1)]
    assert [i.name for i in chosen[0]] == [i.name for i in chosen[1]]
    assert [i.name for i in chosen[0]] != [i.name for i in chosen[2]]
    assert set_sha256(chosen[0]) == set_sha256(chosen[1]) != set_sha256(chosen[2])
    assert {i.label for i in chosen[0]} == {"bells", "rain"}


def test_small_and_unequal_sets_are_warned_of_and_the_folder_is_made(folders, tmp_path, capsys):
    out = tmp_path / "new" / "reports" / "report.html"
    few = tmp_path / "few"
    shutil.copytree(folders / "generated" / "bells", few)
    (few / "broken.mkv").unlink()
    arguments = EvaluateArguments(
        ref=folders / "real", gen=few, out=out, metrics=("fad/yamnet",), num_shown=0
    )
    assert evaluate(arguments) == 0
    notes = capsys.readouterr().err
    assert "3 generated and 6 real clips" in notes
    assert "--max-clips 3" in notes
    assert "3 rows are too few for the covariance of 1024 features" in notes
    assert "3 clips on a side are few" in notes
    assert len(json.loads(out.with_suffix(".json").read_text())["warnings"]) == 3
    assert "3 generated and 6 real clips" in out.read_text()


def test_fewer_clips_than_an_interval_needs_are_refused_before_they_are_measured(folders, tmp_path):
    pair = tmp_path / "pair"
    pair.mkdir()
    for name in ("a.mkv", "b.mkv"):
        (pair / name).write_bytes(b"never opened")
    arguments = EvaluateArguments(
        ref=folders / "real", gen=pair, out=tmp_path / "new" / "r.html", metrics=()
    )
    with pytest.raises(ValueError, match="GEN has 2 clips to measure; intervals need at least 3"):
        evaluate(arguments)
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_not_utf8_is_measured_and_printed(folders, tmp_path, capsys):
    mixed = tmp_path / "mixed"
    shutil.copytree(folders / "real" / "bells", mixed)
    source = media_files(mixed)[0].path
    odd = os.fsencode(mixed) + b"/caf\xe9.mkv"
    try:
        shutil.copy(source, odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    arguments = EvaluateArguments(
        ref=folders / "real", gen=mixed, out=tmp_path / "r.html", metrics=(), num_shown=1
    )
    assert evaluate(arguments) == 0
    assert json.loads((tmp_path / "r.json").read_text())["skipped_generated"] == []
    assert r"caf\xe9.mkv" in [item.name for item in media_files(mixed)]
    assert run(["sync", os.fsdecode(odd)]) == 0
    assert r"caf\xe9.mkv: score" in capsys.readouterr().out


def test_warnings_name_the_users_clip(small_dataset, caplog, monkeypatch):
    loud = Clip(
        np.zeros((20, 16, 16, 3), np.uint8),
        np.full((1, 16_000), 1.5, np.float32),
        Fraction(10),
        8000,
    )
    with caplog.at_level("WARNING"):
        ShownClip.of("loud", loud)
    assert caplog.text == ""  # nothing about a file in a temporary folder
    item = clip_items(small_dataset, "", None, 0)[0]
    monkeypatch.setattr(ShardReader, "read", lambda self, record: b"nothing")
    with pytest.raises(MediaError, match=item.name):
        item.open(9.0)
