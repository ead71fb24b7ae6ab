from html.parser import HTMLParser

import pytest

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
        "2.mp4",
        "data:,",
        "2.mp4",
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
    assert page.sources == ["a%20%231%3F%205%25.mp4"] * 2 + ["a%20%231%3F%205%25.png"]


def test_a_missing_file_or_an_empty_gallery_is_refused(tmp_path, exhibits):
    (tmp_path / "2.png").unlink()
    with pytest.raises(ValueError, match=r"2\.png are not there"):
        write_gallery(tmp_path, exhibits, title="x")
    with pytest.raises(ValueError, match="at least one clip"):
        write_gallery(tmp_path, [], title="x")
    assert not (tmp_path / "index.html").exists()
