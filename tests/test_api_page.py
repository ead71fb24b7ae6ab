"""The reference page says what the docstrings say."""

import sys
from pathlib import Path

import pytest

import soundreel

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.fixture(scope="module")
def write_api():
    pytest.importorskip("griffe2md", reason="pip install griffe2md")
    sys.path.insert(0, str(DOCS))
    try:
        import write_api
    finally:
        sys.path.remove(str(DOCS))
    return write_api


@pytest.mark.filterwarnings("ignore")  # of the libraries that draw the page
def test_the_page_is_up_to_date(write_api):
    page = write_api.api_page()
    assert page == (DOCS / "api.md").read_text(encoding="utf-8"), "run python docs/write_api.py"
    public = {name for name in soundreel.__all__ if not name.startswith("_")}
    assert public == set(next(iter(write_api.SECTIONS.values())))
    assert "](#" not in page, "links to what is not on the page"
