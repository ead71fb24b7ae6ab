"""The evaluation's report in a real Chromium: it plays, it fits a phone, it asks for nothing."""

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from soundreel.clip import Clip
from soundreel.data.scenes.render import RenderOptions, render_clip
from soundreel.errors import SoundreelError
from soundreel.metrics.evaluation import evaluate_sets
from soundreel.metrics.measure import measure_set
from soundreel.metrics.report import Shown, ShownClip, ShownPair, write_report
from soundreel.metrics.streams import stream_of

DURATION_S = 1.6
KINDS = ("bells", "rain", "bouncing_balls")


class Colour:
    """An extractor that costs nothing, under the name of a stand-in."""

    name = "efficientnet-lite0"
    modality = "video"
    sample_rate = 0
    weights_sha256 = "0" * 64

    def __call__(self, clips):
        pixels = clips.float().flatten(3) / 255
        return torch.cat([pixels.mean(dim=(1, 3)), pixels.std(dim=(1, 3))], dim=1)


class Item:
    def __init__(self, seed, index):
        self.name, self.label = f"{KINDS[index % 3]}/{seed}-{index}.mp4", KINDS[index % 3]
        options = RenderOptions(num_frames=16, height=64, width=64, kinds=(self.label,))
        scene = render_clip(options, seed, index)
        self.clip = Clip(scene.frames, scene.waveform, Fraction(10), 16_000)

    def open(self, duration_s):
        return stream_of(self.clip.cut(0, duration_s))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    sets = [[Item(seed, k) for k in range(9)] for seed in (1, 2)]
    real, generated = (
        measure_set(items, [Colour()], DURATION_S, Fraction(10), lambda *_: None) for items in sets
    )
    provenance = {"seed": 0, "generated": {"name": "my model"}, "real": {"name": "<films>"}}
    hashes = {"efficientnet-lite0": "0" * 64}
    names = ("kvd/efficientnet-lite0",)
    result = evaluate_sets(real, generated, names, hashes, 0, provenance)
    skipped = measure_set([*sets[0][:3], Broken()], [], DURATION_S, Fraction(10), lambda *_: None)
    result = replace(result, skipped_generated=tuple(skipped.skipped))
    clips = [
        [(ShownClip.of(i.name, i.clip), s) for i, s in zip(items[:4], own.sync[:4], strict=True)]
        for items, own in zip(sets, (real, generated), strict=True)
    ]
    pairs = [
        ShownPair(
            neighbour=n,
            generated=ShownClip.of("generated", sets[1][0].clip),
            known=ShownClip.of("known", sets[0][0].clip),
        )
        for n in result.copies.picture.neighbours[:2]
    ]
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path,
        result,
        Shown(real=clips[0], generated=clips[1], by_picture=pairs, by_sound=pairs),
    )
    return path


class Broken:
    name, label = "bells/broken.mp4", "bells"

    def open(self, duration_s):
        raise SoundreelError("cannot be read: no moov atom in a file of 7 bytes")


@pytest.fixture(scope="module")
def browser(chromium):
    with chromium() as context:
        context.set_default_timeout(180_000)
        yield context


PLAY = """async video => {
    video.muted = true;
    await video.play();
    await new Promise(done => { video.ontimeupdate = () => video.currentTime > 0 && done(); });
    video.pause();
    return {ready: video.readyState, duration: video.duration, width: video.videoWidth,
            error: video.error && video.error.message};
}"""


SCROLLS = """tables => tables.map(table => {
    const box = table.closest(".wide");
    return {
        is_within: box.getBoundingClientRect().right <= document.documentElement.clientWidth,
        is_wider: box.scrollWidth > box.clientWidth,
        overflow: getComputedStyle(box).overflowX,
    };
})"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "height"), [("desktop", 1280, 900), ("phone", 390, 844)])
def test_the_report_plays_and_fits_and_asks_for_nothing(report, browser, name, width, height):
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": height})
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    videos = page.locator("video").all()
    assert len(videos) == 16
    for video in videos:
        state = video.evaluate(PLAY)
        assert state["error"] is None
        assert state["ready"] >= 2  # HAVE_CURRENT_DATA
        assert state["duration"] == pytest.approx(DURATION_S, abs=0.15)
        assert state["width"] >= 64
    for selector, number in (("table", 5), ("svg", 8), ("img", 8), ("pre", 1)):
        elements = page.locator(selector).all()
        assert len(elements) == number, selector
        for element in elements:
            box = element.bounding_box()
            assert box is not None, selector
            assert box["width"] > 100, selector
            assert box["height"] > 20, selector
    names = "Evaluation of my model against <films>"
    assert page.locator("h1").inner_text() == page.title() == names
    headings = page.locator("h2").all_inner_texts()
    for kind in ("Generated clips: my model", "Real clips: <films>"):
        assert kind in headings
    for name in ("my model", "<films>"):
        assert f"Contact sheets of {name}" in headings
    scrolling = page.locator("table").evaluate_all(SCROLLS)
    assert all(box["is_within"] and box["overflow"] == "auto" for box in scrolling)
    if width < 500:
        assert any(box["is_wider"] for box in scrolling), "a table that a phone has no place for"
    posters = [video.get_attribute("poster") for video in videos]
    assert all(poster.startswith("data:image/") for poster in posters)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").first.click()
    kept = Clip.load(download.value.path())
    assert download.value.suggested_filename == "2-0.mp4"
    assert kept.num_frames == 16
    # What is too wide scrolls within its own box; the page as a whole does not.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert messages == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    page.screenshot(path=report.with_name(f"{name}.png"), full_page=True)
    page.close()
