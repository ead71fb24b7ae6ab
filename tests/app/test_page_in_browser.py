"""The web page in a real Chromium: every tab once, and uploads that are refused politely."""

import gc
import os
import sys
from pathlib import Path

import pytest

PATIENCE_MS = 60_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Gradio's own
]


@pytest.fixture
def address(workshop, tmp_path, monkeypatch):
    """The page, served on loopback, with one megabyte as the largest upload."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    pytest.importorskip("gradio", reason="needs pip install 'soundreel[app]'")
    from soundreel.app.page import build_page
    from soundreel.app.server import serve

    page = build_page(workshop, title="a test", examples=[])
    serve(
        page,
        host="127.0.0.1",
        port=7960 + os.getpid() % 30,
        upload_mb=workshop.limits.upload_mb,
        folder=tmp_path,
        prevent_thread_lock=True,
        quiet=True,
    )
    yield page.local_url
    page.close()
    gc.collect()  # what Gradio leaves open is to be found here, where its warnings are ignored


@pytest.fixture
def browser(address, chromium):
    """A tab with the page."""
    with chromium(viewport={"width": 1280, "height": 1000}) as context:
        tab = context.pages[0]
        tab.set_default_timeout(PATIENCE_MS)
        tab.goto(address)
        tab.get_by_role("tab", name="Measure sync").wait_for()
        yield tab


def open_tab(browser, name):
    browser.get_by_role("tab", name=name).click()
    panel = browser.locator("[role=tabpanel]:visible").first
    panel.wait_for()
    return panel


def few_steps(panel):
    panel.get_by_role("button", name="Settings").click()
    panel.get_by_label("number input for Steps").fill("2")


def photograph(browser, name):
    """Keep a picture where SOUNDREEL_SCREENSHOTS says."""
    folder = os.environ.get("SOUNDREEL_SCREENSHOTS")
    if folder:
        browser.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def upload(panel, path):
    panel.locator("input[type=file]").first.set_input_files(str(path))


def test_every_tab_does_its_work(browser, video, tmp_path):
    panel = open_tab(browser, "Clips with sound")
    few_steps(panel)
    panel.get_by_role("button", name="Make").click()
    panel.locator("video").first.wait_for()
    panel.get_by_text("steps 2").first.wait_for()
    photograph(browser, "joint")
    panel.get_by_role("button", name="Again with another seed").click()
    panel.get_by_text("seed 1, steps 2").first.wait_for()
    assert panel.locator("video").first.evaluate("v => v.loop && v.autoplay")
    panel.locator("a[href*='soundreel.gif']").first.wait_for(state="attached")
    panel.get_by_label("Seed").fill("")
    panel.get_by_role("button", name="Make").click()
    browser.get_by_text("the seed is empty").first.wait_for()

    for name, given in (("Sound for a video", video), ("Pictures for a sound", video)):
        source = given
        if name == "Pictures for a sound":
            source = tmp_path / "sound.wav"
            source.write_bytes(wav_of(video))
        panel = open_tab(browser, name)
        upload(panel, source)
        few_steps(panel)
        browser.wait_for_timeout(2000)
        panel.get_by_role("button", name="Make").click()
        panel.locator("img[src*='contact-sheet']").first.wait_for()
        photograph(browser, name.split()[0].lower())

    panel = open_tab(browser, "Upscale")
    upload(panel, video)
    few_steps(panel)
    browser.wait_for_timeout(2000)
    panel.get_by_role("button", name="Enlarge").click()
    panel.locator("img[src*='contact-sheet']").first.wait_for()
    photograph(browser, "upscale")

    panel = open_tab(browser, "Measure sync")
    upload(panel, video)
    browser.wait_for_timeout(2000)
    panel.get_by_role("button", name="Measure").click()
    panel.get_by_text("score").first.wait_for()
    photograph(browser, "sync")


def test_uploads_are_refused_in_words(browser, tmp_path):
    panel = open_tab(browser, "Measure sync")
    panel.get_by_role("button", name="Measure").click()
    browser.get_by_text("choose a file first").first.wait_for()

    (tmp_path / "broken.mp4").write_bytes(bytes(2000))
    upload(panel, tmp_path / "broken.mp4")
    browser.wait_for_timeout(2000)
    panel.get_by_role("button", name="Measure").click()
    browser.get_by_text("cannot be read").first.wait_for()
    photograph(browser, "broken")


def test_too_large_an_upload_is_refused_before_it_arrives(browser, tmp_path):
    (tmp_path / "large.mp4").write_bytes(bytes(3_000_000))
    panel = open_tab(browser, "Measure sync")
    upload(panel, tmp_path / "large.mp4")
    browser.get_by_text("maximum allowed size").first.wait_for()
    photograph(browser, "large")
    kept = [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 1_500_000


def wav_of(video):
    import io
    import wave

    import numpy as np

    from soundreel.clip import Clip

    clip = Clip.load(video)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate)
        file.writeframes((clip.waveform[0] * 32_000).astype(np.int16).tobytes())
    assert sys.byteorder == "little"
    return buffer.getvalue()


def test_a_finished_example_is_there_at_once(browser):
    panel = open_tab(browser, "Clips with sound")
    panel.locator("video").first.wait_for()
    panel.locator("img[src*='contact-sheet']").first.wait_for()


def test_requests_of_other_sites_are_refused(address):
    import urllib.error
    import urllib.request

    def status(origin):
        request = urllib.request.Request(f"{address}config", headers={"Origin": origin})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    assert status(address.rstrip("/")) == 200
    assert status("http://elsewhere.example") == 403


def test_on_a_phone_nothing_is_wider_than_the_screen(address, chromium):
    with chromium(viewport={"width": 390, "height": 800}) as context:
        tab = context.pages[0]
        tab.set_default_timeout(PATIENCE_MS)
        tab.goto(address)
        tab.locator("video").first.wait_for()
        photograph(tab, "phone")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
