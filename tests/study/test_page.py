"""The page in Chromium: a whole study with the keyboard alone, and one on a phone."""

import threading
from contextlib import contextmanager

import pytest

from soundreel.study.protocol import QUESTIONS
from soundreel.study.server import StudyServer

pytestmark = pytest.mark.slow

NUM_TRIALS = 9
PHONE = {"width": 360, "height": 740}


@pytest.fixture
def served(study_folder):
    server = StudyServer(study_folder, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser_page(chromium):
    @contextmanager
    def opened(allowed_problem="", **options):
        """A page in a new profile; at the end no script may have failed."""
        problems = []
        with chromium(**options) as context:
            page = context.new_page()
            page.set_default_timeout(60_000)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
            yield page
        assert [p for p in problems if not allowed_problem or allowed_problem not in p] == []

    return opened


def wait_for_trial(page, number):
    page.get_by_role("heading", name=f"Video {number}", exact=True).wait_for()


def wait_for_end_of_clip(page):
    page.locator("#question:enabled").wait_for()


def asked_answer(page):
    """What an attention check asks for, or None."""
    notice = page.locator("#asked")
    return notice.inner_text().split("answer ")[1][0] if notice.is_visible() else None


def test_a_study_with_the_keyboard_alone(served, browser_page):
    with browser_page(viewport={"width": 1200, "height": 800}) as page:
        page.goto(served.url)
        page.wait_for_selector("#agree", state="visible")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        given = []
        for number in range(1, NUM_TRIALS + 1):
            if number in (1, 5):  # each part begins with what it is about
                page.wait_for_selector("#intro", state="visible")
                page.keyboard.press("Enter")
            wait_for_trial(page, number)
            assert page.locator("#next").is_disabled()
            page.keyboard.press("3")  # before the clip has been watched: no answer
            assert page.locator("input:checked").count() == 0
            page.keyboard.press("Space")
            wait_for_end_of_clip(page)
            asked = asked_answer(page)
            keys = [asked or "2"] if number < 5 else [asked or key for key in "245"]
            for key in keys:
                page.keyboard.press(key)
            if number == 5 and asked is None:  # back to the second question, and another answer
                page.keyboard.press("Backspace")
                page.keyboard.press("3")
                keys[1] = "3"
            given.append(tuple(int(key) for key in keys))
            page.keyboard.press("Enter")
        page.wait_for_selector("#done", state="visible")
    answered = served.service.store.answered_trials()
    kept = [tuple(t.values[q.key] for q in QUESTIONS[t.trial.test]) for t in answered]
    assert kept == given
    assert all(t.num_plays == 1 for t in answered)


def test_a_study_on_a_phone_with_a_reload_in_the_middle(served, browser_page):
    options = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with browser_page(**options) as page:
        page.goto(served.url)
        page.tap("#agree")
        for number in range(1, NUM_TRIALS + 1):
            if number in (1, 5):
                page.tap("#begin")
            wait_for_trial(page, number)
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["width"]
            page.tap("#play")
            wait_for_end_of_clip(page)
            asked = asked_answer(page)
            for prompt in page.locator("#tabs button").all() or [None]:
                if prompt is not None and prompt.is_visible():
                    prompt.tap()
                row = page.locator("label").nth(int(asked or 1) - 1)
                box = row.bounding_box()
                assert box["height"] >= 48
                row.tap()
                page.wait_for_timeout(250)
            assert page.locator("#next").bounding_box()["height"] >= 48
            page.tap("#next")
            if number == 2:  # the link alone is enough to go on
                wait_for_trial(page, 3)
                page.reload()
                page.tap("#begin")
        page.wait_for_selector("#done", state="visible")
    assert len(served.service.store.answered_trials()) == NUM_TRIALS
    assert set(served.service.store.progress().values()) == {(NUM_TRIALS, NUM_TRIALS)}


def test_an_answer_is_not_lost_when_the_connection_breaks(served, browser_page):
    with browser_page(viewport={"width": 1200, "height": 800}) as page:
        page.goto(served.url)
        page.click("#agree")
        page.click("#begin")
        page.click("#play")
        wait_for_end_of_clip(page)
        page.keyboard.press(asked_answer(page) or "2")
        page.evaluate(
            "() => { window.realFetch = fetch;"
            " window.fetch = () => Promise.reject(new TypeError()) }"
        )
        page.keyboard.press("Enter")
        page.wait_for_selector("#problem", state="visible")
        assert "no connection" in page.locator("#problem").inner_text()
        page.evaluate("() => { window.fetch = window.realFetch }")
        page.click("#problem button")
        wait_for_trial(page, 2)
    assert len(served.service.store.answered_trials()) == 1


def test_a_wrong_link_says_so(served, browser_page):
    # The browser itself notes the refused request.
    with browser_page(allowed_problem="404") as page:
        page.goto(served.url + "#nobody")
        page.wait_for_selector("#problem", state="visible")
        assert "belongs to no participant" in page.locator("#problem").inner_text()
