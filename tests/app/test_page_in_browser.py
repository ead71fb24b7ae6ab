"""The web page in a real Chromium: every tab once, and uploads that are refused politely."""

import sys
import threading
from types import SimpleNamespace

import av
import numpy as np
import pytest
from browsing import PATIENCE_MS, few_steps, open_tab, photograph, upload

from soundreel.clip import Clip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Gradio's own
]


@pytest.fixture
def browser(address, chromium):
    """A tab with the page."""
    with chromium(viewport={"width": 1280, "height": 1000}) as context:
        tab = context.pages[0]
        tab.set_default_timeout(PATIENCE_MS)
        tab.goto(address)
        tab.get_by_role("tab", name="Measure sync").wait_for()
        yield tab


def downloaded(browser, panel, target):
    """Keep the clip that a tab offers."""
    link = panel.locator("a[href*='soundreel.mp4']").first
    link.wait_for(state="attached")
    target.write_bytes(browser.request.get(link.get_attribute("href")).body())
    return target


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_a_live_film_plays_while_it_is_made_and_stops(browser):
    panel = open_tab(browser, "Live")
    few_steps(panel)
    panel.get_by_role("button", name="Play").click()
    panel.get_by_text("seed 0, steps 2").first.wait_for()
    browser.wait_for_function("document.querySelector('#live video').currentTime > 0.5")
    photograph(browser, "live")
    panel.get_by_role("button", name="Stop").click()
    browser.wait_for_function("!document.querySelector('#live video').hasAttribute('src')")
    assert browser.request.get(browser.url.rstrip("/") + "/live/none.mp4").status == 404


def test_clips_are_made_and_made_again(browser):
    panel = open_tab(browser, "Clips with sound")
    few_steps(panel)
    panel.get_by_role("button", name="Make").click()
    panel.get_by_text("steps 2").first.wait_for()
    photograph(browser, "clips")
    panel.get_by_role("button", name="Again with another seed").click()
    panel.get_by_text("seed 1, steps 2").first.wait_for()
    assert panel.locator("video").count() == 1, "one place of results"
    assert panel.locator("video").first.evaluate("v => v.loop && v.autoplay")
    shape = "v => getComputedStyle(v).objectFit"
    assert panel.locator("video").first.evaluate(shape) in ("contain", "scale-down")
    panel.locator("a[href*='soundreel.gif']").first.wait_for(state="attached")
    assert not browser.get_by_role("button", name="Share").count()
    panel.get_by_label("Seed").fill("")
    panel.get_by_role("button", name="Make").click()
    browser.get_by_text("the seed is empty").first.wait_for()


def test_a_video_comes_back_as_it_was_with_new_sound(browser, video, tmp_path):
    panel = open_tab(browser, "Sound for a video")
    upload(panel, video)
    few_steps(panel)
    panel.get_by_role("button", name="Make").click()
    panel.locator("img[src*='contact-sheet']").first.wait_for()
    photograph(browser, "sound")
    whole = downloaded(browser, panel, tmp_path / "whole.mp4")
    assert packets(whole, "video") == packets(video, "video")
    assert Clip.load(whole).num_samples == 32_000

    panel.get_by_label("From second").fill("0.4")
    panel.get_by_label("Seconds (0").fill("0.8")
    panel.get_by_label("Seed").fill("7")
    panel.get_by_role("button", name="Make").click()
    panel.get_by_text("seed 7").first.wait_for()
    part = Clip.load(downloaded(browser, panel, tmp_path / "part.mp4"))
    assert (part.num_frames, part.num_samples) == (20, 12_800)


def test_the_official_rule_of_guidance_is_chosen(browser, video):
    panel = open_tab(browser, "Sound for a video")
    upload(panel, video)
    panel.get_by_role("button", name="Settings").click()
    panel.get_by_label("number input for Steps").fill("2")
    for name, value in (("Guidance rule", "official"), ("Sampler", "ddpm")):
        panel.get_by_label(name, exact=True).click()
        panel.get_by_role("option", name=value, exact=True).click()
    panel.get_by_label("Seconds (0").fill("0.4")
    panel.get_by_role("button", name="Make").click()
    panel.get_by_text("steps 2").first.wait_for()
    assert panel.locator("a[href*='soundreel.mp4']").count()


def test_a_sound_gets_pictures(browser, video, tmp_path):
    (tmp_path / "sound.wav").write_bytes(wav_of(video))
    panel = open_tab(browser, "Pictures for a sound")
    upload(panel, tmp_path / "sound.wav")
    few_steps(panel)
    panel.get_by_role("button", name="Make").click()
    panel.locator("img[src*='contact-sheet']").first.wait_for()
    photograph(browser, "pictures")
    clip = Clip.load(downloaded(browser, panel, tmp_path / "made.mp4"))
    assert (clip.num_frames, clip.num_samples) == (20, 32_000)


def test_films_are_longer_go_on_from_a_clip_and_can_be_stopped(browser, video, tmp_path):
    panel = open_tab(browser, "Longer")
    few_steps(panel)
    panel.get_by_label("Length in seconds").fill("1.2")
    panel.get_by_role("button", name="Make").click()
    panel.locator("img[src*='contact-sheet']").first.wait_for()
    photograph(browser, "longer")
    assert Clip.load(downloaded(browser, panel, tmp_path / "film.mp4")).num_frames == 12

    upload(panel, video)
    panel.get_by_label("only the sound").check()
    panel.get_by_label("Length in seconds").fill("2.5")
    panel.get_by_label("Seed").fill("3")
    panel.get_by_role("button", name="Make").click()
    panel.get_by_text("seed 3").first.wait_for()
    photograph(browser, "longer-sound")
    sound = Clip.load(downloaded(browser, panel, tmp_path / "sound.mp4"))
    assert (sound.frames is None, sound.num_samples) == (True, 40_000)

    panel.get_by_label("both").check()
    panel.get_by_label("Length in seconds").fill("4")
    panel.get_by_label("number input for Steps").fill("40")
    panel.get_by_label("Seed").fill("4")
    panel.get_by_role("button", name="Make").click()
    panel.get_by_text("/40 frames").first.wait_for()
    panel.get_by_role("button", name="Cancel").click()
    panel.get_by_text("stopped early").first.wait_for()
    clip = Clip.load(downloaded(browser, panel, tmp_path / "stopped.mp4"))
    assert 20 <= clip.num_frames < 40
    assert clip.num_samples == clip.num_frames * 1_600


def test_frames_are_enlarged_and_sync_is_measured(browser, video):
    panel = open_tab(browser, "Upscale")
    upload(panel, video)
    few_steps(panel)
    panel.get_by_role("button", name="Enlarge").click()
    panel.locator("img[src*='contact-sheet']").first.wait_for()
    photograph(browser, "upscale")

    panel = open_tab(browser, "Measure sync")
    upload(panel, video)
    panel.get_by_role("button", name="Measure").click()
    panel.get_by_text("score").first.wait_for()
    photograph(browser, "sync")


@pytest.fixture
def held(workshop, monkeypatch):
    """Clips of visitors are held after the first of four steps, until `held.gate` is opened."""
    generate = workshop.generate
    held = SimpleNamespace(gate=threading.Event(), visitors=[])

    def slow(visitor, progress=None, **how):
        if visitor != "the page":
            held.visitors.append(visitor)
            progress(1, 4)
            assert held.gate.wait(PATIENCE_MS / 1000)
        return generate(visitor, **how)

    monkeypatch.setattr(workshop, "generate", slow)
    yield held
    held.gate.set()


def test_a_waiting_request_is_taken_back(held, browser, address):
    """The second visitor cancels while the first one's clip is made, and never gets a turn."""
    first = open_tab(browser, "Clips with sound")
    few_steps(first)
    other = browser.context.new_page()
    other.goto(address)
    second = open_tab(other, "Clips with sound")
    few_steps(second)
    first.get_by_role("button", name="Make").click()
    first.get_by_text("1/4 steps").first.wait_for()
    second.get_by_role("button", name="Make").click()
    second.get_by_text("queue").first.wait_for()
    second.get_by_role("button", name="Cancel").click()
    second.get_by_text("queue").first.wait_for(state="hidden")
    held.gate.set()
    first.get_by_text("seed 0, steps 2").first.wait_for()
    assert len(held.visitors) == 1
    second.get_by_role("button", name="Again with another seed").click()
    second.get_by_text("seed 1, steps 2").first.wait_for()
    assert len(held.visitors) == 2


def test_uploads_are_refused_in_words(browser, tmp_path):
    panel = open_tab(browser, "Measure sync")
    panel.get_by_role("button", name="Measure").click()
    browser.get_by_text("choose a file first").first.wait_for()

    (tmp_path / "broken.mp4").write_bytes(bytes(2000))
    upload(panel, tmp_path / "broken.mp4")
    panel.get_by_role("button", name="Measure").click()
    browser.get_by_text("cannot be read").first.wait_for()
    photograph(browser, "broken")


def test_too_large_an_upload_is_refused_before_it_arrives(browser, tmp_path):
    (tmp_path / "large.mp4").write_bytes(bytes(3_000_000))
    panel = open_tab(browser, "Measure sync")
    panel.locator("input[type=file]").set_input_files(tmp_path / "large.mp4")
    browser.get_by_text("maximum allowed size").first.wait_for()
    photograph(browser, "large")
    kept = [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 1_500_000


def wav_of(video):
    import io
    import wave

    clip = Clip.load(video)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate)
        file.writeframes((clip.waveform[0] * 32_000).astype(np.int16).tobytes())
    assert sys.byteorder == "little"
    return buffer.getvalue()


PLAYING = """new Promise(done => {
    const look = () => {
        const video = document.querySelector("video");
        if (video?.currentTime > 0 && !video.paused) done({muted: video.muted, loop: video.loop});
        else setTimeout(look, 50);
    };
    look();
})"""
"""Looked at without `evaluate`, which counts as a click of the visitor."""


def test_a_finished_example_plays_at_once_and_aloud_after_a_click(address, chromium):
    with chromium("--autoplay-policy=document-user-activation-required") as context:
        tab = context.pages[0]
        tab.set_default_timeout(PATIENCE_MS)
        tab.goto(address)
        asked = {"expression": PLAYING, "awaitPromise": True, "returnByValue": True}
        answer = context.new_cdp_session(tab).send("Runtime.evaluate", asked)
        assert answer["result"]["value"] == {"muted": True, "loop": True}
        tab.locator("img[src*='contact-sheet']").first.wait_for()
        tab.get_by_text("made together").click()
        assert tab.locator("video").first.evaluate("v => !v.muted && !v.paused")


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
