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
from soundreel.metrics.evaluation import MIN_PER_CLASS, evaluate_sets
from soundreel.metrics.measure import measure_set
from soundreel.metrics.memorisation import describe_picture, describe_sound, find_copies
from soundreel.metrics.report import ShownClip, report_html, timeline_svg, write_report

OPTIONS = RenderOptions(num_frames=12, height=24, width=24, kinds=("bells", "rain"))
DURATION_S = 1.2


def scene(index, seed=0, **changes):
    clip = render_clip(replace(OPTIONS, **changes), seed, index)
    return Clip(clip.frames, clip.waveform, Fraction(10), 16_000)


@dataclass(frozen=True)
class Item:
    name: str
    label: str
    clip: Clip | Exception

    def load(self, duration_s):
        if isinstance(self.clip, Exception):
            raise self.clip
        return self.clip


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


def evaluate(real, generated, seed=0):
    return evaluate_sets(
        real,
        generated,
        ("fad/yamnet", "kvd/efficientnet-lite0"),
        {"yamnet": "1" * 64, "efficientnet-lite0": "0" * 64},
        seed,
        {"seed": seed},
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
    names = [str(k) for k in range(12)]
    for describe in (describe_picture, describe_sound):
        real = torch.stack([describe(c) for c in clips])
        generated = torch.stack([describe(c) for c in (fresh, copied)])
        found = find_copies(real, names, generated, ["fresh", "copied"])
        assert found.neighbours[0].generated == "copied"
        assert found.neighbours[0].real == "5"
        assert found.neighbours[0].distance < 0.3
        assert found.neighbours[1].distance > 2 * found.neighbours[0].distance
        assert found.share_suspicious == 0.5
    with pytest.raises(ValueError, match="at least 3"):
        find_copies(real[:2], names[:2], generated, ["a", "b"])


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
    shown = [ShownClip(name="<b>0</b>", clip=scene(0, 2), sync=generated.sync[0])]
    path = tmp_path / "report.html"
    write_report(path, result, [], shown)
    html = path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert tags.addresses
    assert all(a.startswith("data:") for a in tags.addresses)
    assert "<b>0</b>" not in html
    data = re.search(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", html).group(1)
    clip = Clip.load(io.BytesIO(base64.b64decode(data)))
    assert clip.duration_s == pytest.approx(1.2)
    for metric in result.metrics:
        assert metric.name in html
        assert f"{metric.overall.value:.4g}" in html
    again = report_html(result, [], shown)
    video = r"data:video/mp4;base64,[A-Za-z0-9+/=]+"  # the encoder is not exactly repeatable
    assert re.sub(video, "", html) == re.sub(video, "", again)


def test_timeline_has_a_curve_for_picture_and_sound():
    svg = timeline_svg(scene(0))
    points = re.findall(r"points='([^']+)'", svg)
    assert len(points) == 2
    assert len(points[0].split()) == 11
    assert timeline_svg(Clip(scene(0).frames, None, Fraction(10))) == ""
