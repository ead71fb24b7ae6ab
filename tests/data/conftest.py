"""Small videos with known content, from which data sets are prepared in tests; a file server."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from soundreel.media.encode import write_mkv

MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(make_video_anywhere: MakeVideo) -> MakeVideo:
    """Writes a video; see `make_video_anywhere`."""
    return make_video_anywhere


@pytest.fixture(scope="session")
def make_video_anywhere() -> MakeVideo:
    """Writes a lossless video whose every frame and sample tells its time.

    Frame k is grey level `first_level + k` with its left half 100 brighter; sample n is
    `loudness * sin(2 pi 440 n / sample_rate)`.
    """

    def make(
        path: Path,
        *,
        duration_s: float = 2.0,
        frame_rate: int = 10,
        sample_rate: int = 16_000,
        size: tuple[int, int] = (16, 16),
        first_level: int = 0,
        loudness: float = 0.5,
        sound_s: float | None = None,
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = round(duration_s * frame_rate)
        levels = (first_level + np.arange(count)).astype(np.uint8)
        frames = np.repeat(levels, size[0] * size[1] * 3).reshape(count, *size, 3)
        frames[:, :, : size[1] // 2] += 100
        times = np.arange(round((sound_s or duration_s) * sample_rate)) / sample_rate
        waveform = (loudness * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None]
        write_mkv(path, list(frames), waveform, Fraction(frame_rate), sample_rate)
        return path

    return make


@dataclass
class Served:
    """What the server has done, and how it is to misbehave.

    Attributes:
        ranges: (path, first byte, number of bytes) of each range that was sent.
        num_failures: requests still to be answered by 503.
        fault: "" for none; "whole": files are sent whole; "endless": ranges never end; "short":
            ranges end early; "elsewhere": redirects to a local file.
    """

    url: str
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    num_failures: int = 0
    fault: str = ""


@pytest.fixture(scope="session")
def serving() -> Callable[[Path], AbstractContextManager[Served]]:
    """Serves a folder over HTTP as object stores do, ranges of bytes included."""
    return _serving


@contextmanager
def _serving(folder: Path) -> Iterator[Served]:
    """Serve a folder on a free port of this machine for as long as the block lasts."""
    served = Served("")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(is_head=True)

        def do_GET(self) -> None:
            self._answer(is_head=False)

        def log_message(self, *words: object) -> None:
            pass

        def _answer(self, is_head: bool) -> None:
            path = folder / self.path[1:]
            if served.num_failures:
                served.num_failures -= 1
                self.send_error(503)
            elif not path.is_file():
                self.send_error(404)
            elif served.fault == "elsewhere":
                self.send_response(302)
                self.send_header("Location", path.as_uri())
                self.end_headers()
            else:
                with suppress(OSError):  # the client has had enough
                    self._send(path.read_bytes(), is_head)

        def _send(self, content: bytes, is_head: bool) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            is_part = wanted is not None and served.fault != "whole"
            if wanted and is_part:
                first, last = int(wanted[1]), int(wanted[2])
                content = content[first : last + 1]
                served.ranges.append((self.path[1:], first, len(content)))
                content = content[:-1] if served.fault == "short" else content
            self.send_response(206 if is_part else 200)
            if served.fault != "endless":
                self.send_header("Content-Length", str(len(content)))
            elif is_head:
                self.send_header("Content-Length", "1000")
            self.end_headers()
            while not is_head:
                self.wfile.write(content)
                if served.fault != "endless":
                    break

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def wait_until_gone():
    """Wait until processes of these numbers have ended."""

    def wait(pids, *, within_s):
        deadline = time.monotonic() + within_s
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < deadline, "workers of a dead process stay"
            time.sleep(0.1)

    return wait
