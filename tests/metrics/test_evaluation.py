"""Measuring sets, comparing them, finding copies, and the report that shows it all."""

import base64
import io
import json
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from soundreel.clip import Clip
from soundreel.data.scenes.render import RenderOptions, render_clip
from soundreel.media.errors import MediaError
from soundreel.metrics.copies import copies_of_training
from soundreel.metrics.evaluation import MIN_PER_CLASS, evaluate_sets
from soundreel.metrics.measure import measure_set
from soundreel.metrics.memorisation import (
    NearestSearch,
    describe_picture,
    describe_sound,
    judge_copies,
)
from soundreel.metrics.report import Shown, ShownClip, ShownPair, report_html, write_report
from soundreel.metrics.streams import stream_of, watch
from soundreel.metrics.sync.score import SyncSummary
from soundreel.metrics.timeline import standalone, timeline_svg

OPTIONS = RenderOptions(num_frames=12, height=24, width=24, kinds=("bells", "rain"))
DURATION_S = 1.2


def scene(index, seed=0, **changes):
    clip = render_clip(replace(OPTIONS, **changes), seed, index)
    return Clip(clip.frames, clip.waveform, Fraction(10), 16_000)


def scenes_of_all_kinds(seed, count):
    return [scene(k, seed, kinds=("bells", "rain", "fire", "waves")) for k in range(count)]


@dataclass(frozen=True)
class Item:
    name: str
    label: str
    clip: Clip | Exception

    def open(self, duration_s):
        if isinstance(self.clip, Exception):
            raise self.clip
        return stream_of(self.clip)


class MeanColour:
    """A stand-in extractor: mean and spread of each colour channel."""

    name = "efficientnet-lite0"
    modality = "video"
    sample_rate = 0
    weights_sha256 = "0" * 64

    def __call__(self, clips):
        pixels = clips.float().flatten(3) / 255
        return torch.cat([pixels.mean(dim=(1, 3)), pixels.std(dim=(1, 3))], dim=1)


class Loudness:
    """A stand-in extractor with two rows a clip, as distances over stretches of sound have."""

    name = "yamnet"
    modality = "audio"
    sample_rate = 8_000
    weights_sha256 = "1" * 64

    def __call__(self, clips):
        halves = clips[:, : clips.shape[1] // 2 * 2].reshape(2, -1)
        return torch.stack([halves.std(dim=1), halves.abs().mean(dim=1)], dim=1)


def items(seed, count=2 * MIN_PER_CLASS):
    names = ("bells", "rain")
    return [Item(f"{seed}-{k}", names[k % 2], scene(k, seed)) for k in range(count)]


def measure(found):
    calls = []
    measured = measure_set(
        found,
        [MeanColour(), Loudness()],
        DURATION_S,
        Fraction(5),
        lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (len(found), len(found))
    return measured


@pytest.fixture(scope="module")
def measured():
    return measure(items(1)), measure(items(2))


def evaluate(real, generated, seed=0, copies=None):
    return evaluate_sets(
        real,
        generated,
        ("fad/yamnet", "kvd/efficientnet-lite0"),
        {"yamnet": "1" * 64, "efficientnet-lite0": "0" * 64},
        seed,
        {"seed": seed},
        copies,
    )


def test_features_are_counted_by_clip_and_selected_by_class(measured):
    real, _ = measured
    assert real.features_of("yamnet").shape == (4 * MIN_PER_CLASS, 2)
    assert real.features_of("yamnet", "rain").shape == (2 * MIN_PER_CLASS, 2)
    rows = real.features_of("efficientnet-lite0", "rain")
    index = [k for k, label in enumerate(real.labels) if label == "rain"]
    assert torch.equal(rows, real.features_of("efficientnet-lite0")[index])


def test_what_cannot_be_measured_is_listed_and_left_out():
    good = items(1, 3)
    silent = Clip(good[0].clip.frames, None, Fraction(10))
    found = [
        *good,
        Item("broken", "", MediaError("x.mp4", "cannot be read", "look at it")),
        Item("short", "", good[0].clip.cut(0, 0.5)),
        Item("silent", "", silent),
    ]
    measured = measure(found)
    assert measured.names == ["1-0", "1-1", "1-2"]
    reasons = {s.name: s.reason for s in measured.skipped}
    assert "cannot be read" in reasons["broken"]
    assert reasons["short"] == "lasts 0.50 s, 1.2 s are needed"
    assert reasons["silent"] == "has no sound"
    with pytest.raises(ValueError, match="none of 1 clips"):
        measure([found[3]])


def test_a_defect_is_no_reason_to_leave_a_clip_out(monkeypatch):
    def broken(*arguments):
        raise ValueError("deep inside")

    monkeypatch.setattr("soundreel.metrics.measure.sync_of_curves", broken)
    with pytest.raises(ValueError, match="deep inside"):
        measure(items(1, 1))


def test_results_are_given_by_class_and_repeat_with_the_seed(measured):
    result = evaluate(*measured)
    assert {m.name for m in result.metrics} == {"fad/yamnet", "kvd/efficientnet-lite0"}
    for metric in result.metrics:
        assert set(metric.by_class) == {"bells", "rain"}
        assert metric.overall.low <= metric.overall.value <= metric.overall.high
    assert result.to_json() == evaluate(*measured).to_json()
    other = evaluate(*measured, seed=1)
    assert other.metrics[0].overall.value == result.metrics[0].overall.value
    assert other.metrics[0].overall.low != result.metrics[0].overall.low
    assert set(result.sync_generated.by_class) == {"bells", "rain"}
    json.dumps(result.to_json())


def test_other_scenes_are_further_away_than_the_same_kind(measured):
    real, same = measured
    options = {"kinds": ("fire", "waves")}
    other = measure([Item(str(k), "", scene(k, 3, **options)) for k in range(12)])
    for near, far in zip(evaluate(real, same).metrics, evaluate(real, other).metrics, strict=True):
        assert far.overall.value > near.overall.value


def test_a_copy_is_found_in_picture_and_in_sound():
    clips = [scene(k, 1, kinds=("bells", "rain", "fire", "waves")) for k in range(12)]
    noise = np.random.default_rng(0).integers(-3, 4, clips[5].frames.shape)
    copied = Clip(
        np.clip(clips[5].frames + noise, 0, 255).astype(np.uint8),
        (0.98 * clips[5].waveform).astype(np.float32),
        Fraction(10),
        16_000,
    )
    fresh = scene(21, 8, kinds=("bells", "rain", "fire", "waves"))
    seen = [watch(stream_of(c), None) for c in (*clips, fresh, copied)]
    for queries in (
        torch.stack([describe_picture(one.thumbnails) for one in seen]),
        torch.stack([describe_sound(one.waveform) for one in seen]),
    ):
        search = NearestSearch(queries)
        for k in range(12):
            search.see(str(k), [0.0], queries[k : k + 1], own=k)
        found = judge_copies(search, 12, ["fresh", "copied"])
        assert found.neighbours[0].generated == "copied"
        assert found.neighbours[0].known == "5"
        assert found.neighbours[0].distance < 0.3
        assert found.neighbours[1].distance > 2 * found.neighbours[0].distance
        assert found.share_suspicious == 0.5
    with pytest.raises(ValueError, match="at least 3"):
        judge_copies(search, 2, ["a"] * 12)


def test_a_copy_from_the_middle_of_a_training_clip_is_found_with_its_time():
    """The training clips are longer than what is compared, and REF was not trained on."""
    long = [scene(k, 4, num_frames=24, kinds=("bells", "rain", "fire", "waves")) for k in range(6)]
    copied = Item("copied", "", long[3].cut(0.8, DURATION_S))
    fresh = [Item(f"fresh-{k}", "", clip) for k, clip in enumerate(scenes_of_all_kinds(9, 4))]
    real = measure([Item(str(k), "", clip) for k, clip in enumerate(scenes_of_all_kinds(5, 8))])
    generated = measure([*fresh, copied])
    training = [Item(f"train-{k}", "", clip) for k, clip in enumerate(long)]
    training.append(Item("broken", "", MediaError("x.mp4", "cannot be read", "look at it")))
    calls = []
    copies = copies_of_training(training, real, generated, DURATION_S, lambda *c: calls.append(c))
    assert calls[-1] == (7, 7)
    assert (copies.known, copies.num_known) == ("training", 6)
    assert [s.name for s in copies.skipped] == ["broken"]
    for found in (copies.picture, copies.sound):
        first = found.neighbours[0]
        assert (first.generated, first.known, first.start_s) == ("copied", "train-3", 0.8)
        assert first.distance == 0
        assert found.neighbours[1].distance > 0.3
        assert found.share_suspicious >= 0.2
    result = evaluate(real, generated, copies=copies).to_json()
    assert result["copies"]["picture"]["neighbours"][0]["known"] == "train-3"


def test_real_clips_that_were_trained_on_cannot_say_what_is_ordinary():
    clips = scenes_of_all_kinds(5, 4)
    items = [Item(str(k), "", clip) for k, clip in enumerate(clips)]
    measured = measure(items)
    with pytest.raises(ValueError, match="give held-out clips as REF"):
        copies_of_training(items, measured, measured, DURATION_S, lambda *_: None)


class Tags(HTMLParser):
    """Checks that tags are closed in order, and collects addresses."""

    VOID = frozenset(("meta", "br", "img", "hr"))

    def __init__(self):
        super().__init__()
        self.open, self.addresses = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_file_with_playable_clips(measured, tmp_path):
    real, generated = measured
    result = evaluate(real, generated)
    clip = scene(0, 2)
    nearest = result.copies.picture.neighbours[0]
    shown = Shown(
        generated=[(ShownClip.of("<b>0</b>", clip), generated.sync[0])],
        by_picture=[
            ShownPair(
                neighbour=nearest,
                generated=ShownClip.of("0", clip),
                known=ShownClip.of("1", scene(1, 1)),
            )
        ],
    )
    path = tmp_path / "report.html"
    write_report(path, result, shown)
    html = path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert tags.addresses
    assert all(a == "#" or a.startswith("data:") for a in tags.addresses)
    assert "<b>0</b>" not in html
    data = re.search(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", html).group(1)
    clip = Clip.load(io.BytesIO(base64.b64decode(data)))
    assert clip.duration_s == pytest.approx(1.2)
    for metric in result.metrics:
        assert metric.name in html
        assert f"{metric.overall.value:.4g}" in html
    again = report_html(result, shown)
    video = r"data:video/mp4;base64,[A-Za-z0-9+/=]+"  # the encoder is not exactly repeatable
    assert re.sub(video, "", html) == re.sub(video, "", again)


def test_timeline_has_a_curve_for_picture_and_sound_and_an_axis():
    svg = timeline_svg(scene(0))
    points = re.findall(r"points='([^']+)'", svg)
    assert len(points) == 2
    assert len(points[0].split()) == 11
    assert "event" in svg
    assert ">1.2 s</text>" in svg
    assert standalone(svg).startswith("<svg xmlns=")
    assert timeline_svg(Clip(scene(0).frames, None, Fraction(10))) == ""


def test_a_number_that_does_not_exist_is_null_in_the_json(measured):
    real, generated = measured
    silent = replace(generated, sync=[None] * len(generated.names))
    result = evaluate(real, silent)
    assert result.sync_generated.overall is None
    assert result.sync_generated.unmeasured == len(silent.names)
    nan = SyncSummary(
        num_clips=1,
        mean_score=0.0,
        share_in_sync=0.0,
        mean_absolute_offset_s=float("nan"),
        median_offset_s=float("nan"),
    )
    result = replace(result, sync_generated=replace(result.sync_generated, overall=nan))
    written = json.dumps(result.to_json(), allow_nan=False)
    assert json.loads(written)["sync_generated"]["overall"]["median_offset_s"] is None
