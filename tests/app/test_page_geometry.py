"""Where things stand on the page, in a real Chromium as wide as a desk's and a phone's."""

import shutil
import threading

import pytest
from browsing import PATIENCE_MS, few_steps, open_tab, photograph, upload

from soundreel.app import turns
from soundreel.clip import Clip

HEIGHT = 800
OVERLAPS = """() => {
    const box = e => e.getBoundingClientRect();
    const things = "img, video, canvas, label, button, [role=button], input, textarea, a, .prose, "
        + ".progress-text, .progress-bar-wrap, .error";
    const seen = [...document.querySelectorAll("[role=tabpanel] *")].filter(
        e => e.matches(things) && !e.closest(".controls") && box(e).width > 1 && box(e).height > 1
        && e.checkVisibility({opacityProperty: true, visibilityProperty: true}));
    const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
    const told = e => e.outerHTML.slice(0, 90);
    return seen.flatMap((a, i) => seen.slice(i + 1).filter(
        b => !a.contains(b) && !b.contains(a) && meet(box(a), box(b))
    ).map(b => told(a) + " over " + told(b)));
}"""
"""Pairs of things in the open tab that lie over each other, but for a player's own controls."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Gradio's own
]


@pytest.fixture
def gate(monkeypatch):
    """While it is closed, work waits after its first step."""
    tell, opened = turns.Work.tell, threading.Event()

    def held(work, done, total):
        tell(work, done, total)
        assert not done or opened.wait(PATIENCE_MS / 1000)

    monkeypatch.setattr(turns.Work, "tell", held)
    opened.set()
    yield opened
    opened.set()


@pytest.fixture
def files(video, tmp_path):
    """Of less than a second, a video that fills its place to the corners, and a sound."""
    clip = Clip.load_beginning(video, 0.8).resample(size=(8, 32))
    clip.save(tmp_path / "wide.mp4")
    shutil.copy(video, tmp_path / "video.mp4")
    Clip(None, clip.waveform, clip.frame_rate, clip.sample_rate).save(tmp_path / "sound.wav")
    return tmp_path


@pytest.fixture(params=[1280, 390])
def tab(request, address, chromium, gate):
    """A tab with the page, as wide as a desk's screen or a phone's."""
    with chromium(viewport={"width": request.param, "height": HEIGHT}) as context:
        tab = context.pages[0]
        tab.set_default_timeout(PATIENCE_MS)
        tab.goto(address)
        tab.locator("img[src*='contact-sheet']").first.wait_for()
        yield tab


def look(tab, name, state):
    """Nothing of the open tab lies over anything, or is wider than the page."""
    width = tab.viewport_size["width"]
    photograph(tab, f"{width}-{name.split()[0].lower()}-{state}")
    assert tab.evaluate(OVERLAPS) == [], (name, state)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, (name, state)


def inside(part, whole):
    """The first box lies in the second one."""
    return (
        whole["x"] <= part["x"]
        and whole["y"] <= part["y"]
        and part["x"] + part["width"] <= whole["x"] + whole["width"]
        and part["y"] + part["height"] <= whole["y"] + whole["height"]
    )


def bottom(box):
    return box["y"] + box["height"]


def refused(tab, panel, name, start):
    """An error has room, in place of other words."""
    status = panel.locator(".block.status")
    start.click()
    badge = status.locator(".error")
    badge.wait_for()
    look(tab, name, "refused")
    assert inside(badge.bounding_box(), status.bounding_box()), "the badge has room"


def working(tab, panel, name, start):
    """Progress is seen without scrolling: words, bar, then the result."""
    told, bar = (panel.locator(f".block.status .progress-{part}") for part in ("text", "bar-wrap"))
    bar.wait_for()
    look(tab, name, "working")
    photograph(tab, f"{tab.viewport_size['width']}-{name.split()[0].lower()}-seen", whole=False)
    screen = {"x": 0, "y": 0, **tab.viewport_size}
    assert inside(told.bounding_box(), screen)
    assert inside(bar.bounding_box(), screen)
    assert bottom(start.bounding_box()) <= told.bounding_box()["y"], "below the finger"
    assert bottom(told.bounding_box()) <= bar.bounding_box()["y"], "words above their bar"
    if tab.viewport_size["width"] == 390:
        assert bottom(bar.bounding_box()) <= panel.locator(".result").bounding_box()["y"]


def finished(tab, panel, name):
    """A wide drawing is wide enough to read on a phone as well, and none of it out of reach."""
    drawn = panel.locator(".wide img")
    drawn.wait_for()
    look(tab, name, "result")
    assert drawn.bounding_box()["width"] >= 600
    left = drawn.evaluate("e => e.closest('.wide').getBoundingClientRect().left")
    assert drawn.bounding_box()["x"] >= left


def test_nothing_of_any_tab_lies_over_another_thing(tab, gate, files):
    for name, button, given in (
        ("Clips with sound", "Make", None),
        ("Longer", "Make", None),
        ("Sound for a video", "Make", "wide.mp4"),
        ("Pictures for a sound", "Make", "sound.wav"),
        ("Upscale", "Enlarge", "wide.mp4"),
        ("Measure sync", "Measure", "video.mp4"),
    ):
        panel = open_tab(tab, name)
        look(tab, name, "idle")
        start = panel.get_by_role("button", name=button, exact=True)
        if given is not None:
            refused(tab, panel, name, start)
            upload(panel, files / given)
        if name == "Longer":
            panel.get_by_label("Length in seconds").fill("0.8")
        if name != "Measure sync":
            few_steps(panel)
            gate.clear()
        start.click()
        if name != "Measure sync":
            working(tab, panel, name, start)
            gate.set()
            panel.get_by_text("times as large" if name == "Upscale" else "steps 2").wait_for()
        finished(tab, panel, name)


def test_a_live_film_stands_below_its_buttons_in_one_row(tab):
    panel = open_tab(tab, "Live")
    look(tab, "Live", "idle")
    play, stop = (panel.get_by_role("button", name=name) for name in ("Play", "Stop"))
    assert play.bounding_box()["y"] == stop.bounding_box()["y"]
    few_steps(panel)
    panel.get_by_label("Seed").fill("")
    refused(tab, panel, "Live", play)
    panel.get_by_label("Seed").fill("0")
    panel.get_by_role("button", name="Settings").click()
    play.click()
    panel.get_by_text("seed 0").wait_for()
    tab.wait_for_function("document.querySelector('#live video')?.videoWidth > 0")
    look(tab, "Live", "result")
    film = panel.locator("video").bounding_box()
    assert inside(film, {"x": 0, "y": 0, **tab.viewport_size}), "seen without scrolling"
    stop.click()
    look(tab, "Live", "stopped")
