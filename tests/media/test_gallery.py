from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from soundreel.clip import Clip
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.media.data_uri import frame_uri
from soundreel.media.gallery import Exhibit, write_gallery


class Page(HTMLParser):
    """What a page loads, and what it says."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "poster")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def exhibits(tmp_path):
    for name in ("1.mp4", "1.png", "2.mp4", "2.png"):
        (tmp_path / name).write_bytes(b"")
    return [
        Exhibit(
            title=f"clip {n}",
            note="<made> & shown",
            video=f"{n}.mp4",
            sheet=f"{n}.png",
            poster="data:,",
        )
        for n in (1, 2)
    ]


def test_the_page_shows_every_clip_and_loads_nothing_from_elsewhere(tmp_path, exhibits):
    path = write_gallery(tmp_path, exhibits, title="A & B", about="six clips")
    page = Page(path.read_text())
    assert path == tmp_path / "index.html"
    assert page.sources == [
        "1.mp4",
        "data:,",
        "1.mp4",
        "1.png",
        "1.png",
        "2.mp4",
        "data:,",
        "2.mp4",
        "2.png",
        "2.png",
    ]
    assert not page.open
    assert page.words.count("Download") == 2
    text = "".join(page.words)
    assert all(words in text for words in ("A & B", "six clips", "clip 2", "<made> & shown"))


def test_names_that_mean_something_in_addresses_lead_to_their_files(tmp_path):
    for end in (".mp4", ".png"):
        (tmp_path / f"a #1? 5%{end}").write_bytes(b"")
    one = Exhibit(title="x", note="", video="a #1? 5%.mp4", sheet="a #1? 5%.png")
    page = Page(write_gallery(tmp_path, [one], title="x").read_text())
    assert page.sources == ["a%20%231%3F%205%25.mp4"] * 2 + ["a%20%231%3F%205%25.png"] * 2


def test_a_missing_file_or_an_empty_gallery_is_refused(tmp_path, exhibits):
    (tmp_path / "2.png").unlink()
    with pytest.raises(ValueError, match=r"2\.png are not there"):
        write_gallery(tmp_path, exhibits, title="x")
    with pytest.raises(ValueError, match="at least one clip"):
        write_gallery(tmp_path, [], title="x")
    assert not (tmp_path / "index.html").exists()


@contextmanager
def served(folder):
    """The address of a folder: browsers save nothing from pages that are read as files."""
    handler = partial(SimpleHTTPRequestHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_a_desk_and_a_phone_and_its_links_save_the_clips(tmp_path, chromium, width):
    frames = np.full((8, 16, 16, 3), 90, np.uint8)
    clip = Clip(frames, np.zeros((1, 8_000), np.float32), Fraction(16), 16_000)
    clip.save(tmp_path / "fire.mp4")
    write_contact_sheet(tmp_path / "fire.png", [clip])
    poster = frame_uri(clip.frames[0])
    one = Exhibit(title="fire", note="", video="fire.mp4", sheet="fire.png", poster=poster)
    write_gallery(tmp_path, [one], title="my model")
    with served(tmp_path) as url, chromium(viewport={"width": width, "height": 800}) as context:
        page = context.pages[0]
        page.goto(url)
        page.wait_for_function("document.querySelector('img').complete")
        assert page.locator("h1").inner_text() == page.title() == "my model"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("video").get_attribute("poster") == poster
        sheet, box = page.locator("img").bounding_box(), page.locator(".sheet").bounding_box()
        assert sheet["width"] >= 400, "wide enough to read"
        assert box["x"] + box["width"] <= width
        if width == 390:
            assert sheet["width"] > box["width"], "it scrolls in its own box"
            assert page.locator("video").bounding_box()["width"] > 300
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == "fire.mp4"
