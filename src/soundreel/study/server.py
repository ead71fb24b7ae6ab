"""The study's web server: the page, its requests, and clips in parts.

HTTP is spoken by waitress: it needs nothing but Python, works in threads as the store does, and
hands a request on only when all of it is there, so that slow connections take no thread. There is
no encryption: reach the server from outside only through a proxy that has (docs/study.md).
"""

import base64
import hashlib
import ipaddress
import json
import logging
import re
import socket
import sqlite3
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from soundreel.errors import SoundreelError
from soundreel.study.ranges import UnsatisfiableRangeError, requested_range
from soundreel.study.service import StudyService
from soundreel.study.store import RefusedError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096
MAX_HEADER_BYTES = 16_384
MAX_CONNECTIONS = 4096
IDLE_TIMEOUT_S = 30
BACKLOG = 1024
NUM_THREADS = 8
_CLIP = re.compile(r"/clip/([A-Za-z0-9_-]{1,64})\.mp4")
_BEARER = re.compile(r"Bearer ([A-Za-z0-9_-]{1,128})")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+)(?::[0-9]{1,5})?")
_REASONS = {
    200: "OK",
    206: "Partial Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    411: "Length Required",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    421: "Misdirected Request",
    501: "Not Implemented",
    503: "Service Unavailable",
}

Reply = tuple[int, str, bytes, dict[str, str]]
"""Status, content type, content and further headers."""


def allow_many_connections() -> None:
    """Let this process hold as many connections as the system allows it to."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if most == resource.RLIM_INFINITY else min(65_536, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


class StudyServer:
    """Serves one study until `shutdown`."""

    def __init__(
        self, folder: Path, host: str, port: int, allowed_hosts: Iterable[str] = ()
    ) -> None:
        """Open the study and listen.

        Args:
            port: 0 takes a free one; `url` tells which.
            allowed_hosts: names by which browsers reach the server, besides its addresses and
                localhost; requests for other names are refused.

        Raises:
            SoundreelError: waitress is not installed, the folder holds no study, or the address
                cannot be had.
        """
        try:
            from waitress.server import create_server
        except ImportError as error:
            raise SoundreelError(
                "serving a study needs waitress: pip install 'soundreel[study]'"
            ) from error
        self.service = StudyService(folder)
        self._application = _Application(self.service, {h.lower() for h in allowed_hosts})
        self._is_stopping = False
        self._map: dict[int, Any] = {}
        # It would name every moment in which all threads have work.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        except (OSError, OverflowError) as error:
            self.service.close()
            cause = getattr(error, "strerror", None) or str(error)
            raise SoundreelError(f"cannot listen on {host}, port {port}: {cause}") from error
        self.server_address = listener.getsockname()
        self._server = create_server(
            self._application,
            map=self._map,
            sockets=[listener],
            threads=NUM_THREADS,
            backlog=BACKLOG,
            connection_limit=MAX_CONNECTIONS,
            channel_timeout=IDLE_TIMEOUT_S,
            cleanup_interval=IDLE_TIMEOUT_S // 3,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES,
            asyncore_use_poll=True,  # select knows no more than 1024 connections
            log_socket_errors=False,  # a browser that leaves in the middle of a clip is no error
            ident="soundreel",
        )

    @property
    def url(self) -> str:
        """Return the address of the page."""
        name, port = self.server_address[:2]
        return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Answer requests until `shutdown`, for which it looks every `poll_interval` seconds."""
        from waitress import wasyncore

        while not self._is_stopping:
            wasyncore.loop(timeout=poll_interval, use_poll=True, map=self._map, count=1)

    def shutdown(self) -> None:
        """Make `serve_forever` return; may be called in any thread."""
        self._is_stopping = True
        self._server.pull_trigger()  # pyrefly: ignore[missing-attribute]  # one socket, one server

    def server_close(self) -> None:
        """Finish the requests under way, and close all connections and the study."""
        from waitress import wasyncore

        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._map)
        self.service.close()


class _Application:
    """Answers single requests, as PEP 3333 has it."""

    def __init__(self, service: StudyService, allowed_hosts: set[str]) -> None:
        self.service = service
        self.allowed_hosts = {"localhost", *allowed_hosts}
        self.page = files("soundreel.study").joinpath("page.html").read_bytes()
        self.policy = content_policy(self.page.decode())

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            status, kind, content, headers = self._answer(environ)
        except RefusedError as error:
            status, kind, content, headers = _json({"error": str(error)}, error.status)
        except sqlite3.Error:
            logger.exception("the store of answers failed")
            text = "This could not be stored. Please try again."
            status, kind, content, headers = _json({"error": text}, 503)
        common = {
            "Content-Type": kind,
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": self.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        start_response(f"{status} {_REASONS[status]}", list((common | headers).items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]

    def _answer(self, environ: dict[str, Any]) -> Reply:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method not in ("GET", "HEAD", "POST"):
            raise RefusedError(501, "There is no such request.")
        body = _body(environ) if method == "POST" else None
        self._check_host(environ.get("HTTP_HOST", ""))
        clip = _CLIP.fullmatch(path)
        if body is not None:
            if path == "/api/start":
                return _json(self.service.start(body))
            if path == "/api/answer":
                return _json(self.service.answer(_token(environ), body))
        elif path == "/":
            return 200, "text/html; charset=utf-8", self.page, {}
        elif path == "/api/study":
            return _json(self.service.describe())
        elif path == "/api/state":
            return _json(self.service.state(_token(environ)))
        elif clip:
            return _clip(self.service.clip_file(clip[1]), environ.get("HTTP_RANGE"))
        raise RefusedError(404, "There is no such page.")

    def _check_host(self, header: str) -> None:
        """Refuse requests for another name: a page of another site may have it point here.

        An address is no name, and cannot be made to point elsewhere.
        """
        match = _HOST.fullmatch(header)
        name = match[1].lower() if match else ""
        if name in self.allowed_hosts:
            return
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            raise RefusedError(
                421, "This server does not go by that name; start it with --allowed-host NAME."
            ) from None


def _token(environ: dict[str, Any]) -> str:
    match = _BEARER.fullmatch(environ.get("HTTP_AUTHORIZATION", ""))
    if match is None:
        raise RefusedError(401, "The personal link is incomplete.")
    return match[1]


def _body(environ: dict[str, Any]) -> dict[str, Any]:
    """Return the request's JSON object; waitress refuses one that is too long."""
    if not environ.get("CONTENT_LENGTH"):
        raise RefusedError(411, "The request must tell its length.")
    # Pages of other sites may send plain text without asking, but not this type.
    kind = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "The request must be JSON.")
    try:
        body = json.loads(environ["wsgi.input"].read())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RefusedError(400, "The request must be a JSON object.")
    return body


def _json(content: dict[str, Any], status: int = 200) -> Reply:
    return status, "application/json", json.dumps(content).encode(), {}


def _clip(path: Path, asked: str | None) -> Reply:
    content = path.read_bytes()  # clips are seconds long
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=86400"}
    try:
        part = requested_range(asked, len(content))
    except UnsatisfiableRangeError:
        return 416, "video/mp4", b"", {"Content-Range": f"bytes */{len(content)}"}
    if part is None:
        return 200, "video/mp4", content, headers
    first, last = part
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return 206, "video/mp4", content[first : last + 1], headers


def content_policy(page: str) -> str:
    """Return a policy that lets the page's own script and style run, and nothing else."""

    def sources(tag: str) -> str:
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {sources('script')}; style-src {sources('style')}; "
        "media-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
