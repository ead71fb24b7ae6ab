"""The study's web server: the page, its four requests, and clips in parts.

The standard library's server is enough for some dozens of raters, and adds no dependency. It has
no encryption: reach it from outside only through a proxy that has (docs/study.md).
"""

import base64
import hashlib
import json
import logging
import re
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from soundreel.errors import SoundreelError
from soundreel.study.ranges import UnsatisfiableRangeError, requested_range
from soundreel.study.service import StudyService
from soundreel.study.store import RefusedError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096
MAX_CONNECTIONS = 256
IDLE_TIMEOUT_S = 60
_CLIP = re.compile(r"/clip/([A-Za-z0-9_-]{1,64})\.mp4")
_BEARER = re.compile(r"Bearer ([A-Za-z0-9_-]{1,128})")


class StudyServer(ThreadingHTTPServer):
    """Serves one study until `shutdown`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path, host: str, port: int) -> None:
        """
        Args:
            port: 0 takes a free one; `url` tells which.

        Raises:
            SoundreelError: the folder holds no study, or the address cannot be had.
        """
        self.service = StudyService(folder)
        self.page = files("soundreel.study").joinpath("page.html").read_bytes()
        self.policy = content_policy(self.page.decode())
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            self.service.close()
            cause = getattr(error, "strerror", None) or str(error)
            raise SoundreelError(f"cannot listen on {host}, port {port}: {cause}") from error

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        name = host.decode() if isinstance(host, bytes | bytearray) else host
        return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"

    def server_close(self) -> None:
        super().server_close()
        self.service.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong; a browser that leaves in the middle of a clip is nothing wrong."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            logger.error("a request failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and content in one packet

    @property
    def study_server(self) -> StudyServer:
        return cast(StudyServer, self.server)

    def version_string(self) -> str:
        return "soundreel"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the parent's name)
        """Nothing: a log would hold the raters' addresses."""

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_HEAD(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def _respond(self, action: Callable[[], None]) -> None:
        try:
            action()
        except RefusedError as error:
            self._send_json({"error": str(error)}, error.status)
        except sqlite3.Error:
            logger.exception("the store of answers failed")
            self._send_json({"error": "This could not be stored. Please try again."}, 503)

    def _get(self) -> None:
        path = urlsplit(self.path).path
        service = self.study_server.service
        clip = _CLIP.fullmatch(path)
        if path == "/":
            self._send(self.study_server.page, "text/html; charset=utf-8")
        elif path == "/api/study":
            self._send_json(service.describe())
        elif path == "/api/state":
            self._send_json(service.state(self._token()))
        elif clip:
            self._send_clip(service.clip_file(clip[1]))
        else:
            raise RefusedError(404, "There is no such page.")

    def _post(self) -> None:
        body = self._body()
        service = self.study_server.service
        path = urlsplit(self.path).path
        if path == "/api/start":
            self._send_json(service.start(body))
        elif path == "/api/answer":
            self._send_json(service.answer(self._token(), body))
        else:
            raise RefusedError(404, "There is no such page.")

    def _token(self) -> str:
        match = _BEARER.fullmatch(self.headers.get("Authorization", ""))
        if match is None:
            raise RefusedError(401, "The personal link is incomplete.")
        return match[1]

    def _body(self) -> dict[str, Any]:
        """The request's JSON object. Until it has been read, an error closes the connection."""
        keep, self.close_connection = self.close_connection, True
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,9}", length):
            raise RefusedError(411, "The request must tell its length.")
        if int(length) > MAX_BODY_BYTES:
            raise RefusedError(413, "The request is too long.")
        # Pages of other sites may send plain text without asking, but not this type.
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(415, "The request must be JSON.")
        text = self.rfile.read(int(length))
        self.close_connection = keep
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise RefusedError(400, "The request must be a JSON object.")
        return body

    def _send_json(self, content: dict[str, Any], status: int = 200) -> None:
        self._send(json.dumps(content).encode(), "application/json", status)

    def _send_clip(self, path: Path) -> None:
        content = path.read_bytes()  # clips are seconds long
        headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=86400"}
        try:
            part = requested_range(self.headers.get("Range"), len(content))
        except UnsatisfiableRangeError:
            self._send(b"", "video/mp4", 416, {"Content-Range": f"bytes */{len(content)}"})
            return
        if part is None:
            self._send(content, "video/mp4", 200, headers)
            return
        first, last = part
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(content[first : last + 1], "video/mp4", 206, headers)

    def _send(
        self, content: bytes, kind: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        common = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": self.study_server.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        if self.close_connection:
            common["Connection"] = "close"
        for name, value in (common | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def content_policy(page: str) -> str:
    """A policy that lets the page's own script and style run, and nothing else load or run."""

    def sources(tag: str) -> str:
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {sources('script')}; style-src {sources('style')}; "
        "media-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
