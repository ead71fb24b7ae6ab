"""What looks into folders opens the same files."""

from pathlib import Path

import pytest

from soundreel.cli.clip_sources import media_files
from soundreel.data.options import PrepareOptions
from soundreel.data.scan import scan
from soundreel.media.names import is_media_name

VIDEOS = """a.mp4 a.MKV a.3gp a.3g2 a.m2ts a.mts a.ts a.wmv a.asf a.ogv a.webm a.vob a.mpg a.gif
a.mxf a.f4v a.dv a.rm a.avi a.m4v a.mov a.flv a.nut a.y4m a.m3u8 a.wav noending""".split()  # noqa: SIM905
OTHERS = ["a.txt", "a.json", "a.srt", "a.PNG", "a.jpg", "a.html", "a.zip", "a.safetensors"]


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_of_any_kind_are_opened(name):
    assert is_media_name(Path("folder.txt") / name)


@pytest.mark.parametrize("name", [*OTHERS, ".hidden.mp4"])
def test_what_is_known_as_something_else_is_not(name):
    assert not is_media_name(Path("folder.mp4") / name)


def test_evaluate_measures_the_files_that_prepare_reads(tmp_path):
    for name in (*VIDEOS, *OTHERS, ".hidden.mp4"):
        (tmp_path / name).write_bytes(b"content")
    read = {s.name for s in scan(tmp_path, PrepareOptions(), tmp_path / "out") if not s.problem}
    assert {item.name for item in media_files(tmp_path)} == read == set(VIDEOS)
