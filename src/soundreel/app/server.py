"""Serving the page: its port, what may be fetched and sent, and whose requests are answered."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from soundreel.app.live import LiveFilms
from soundreel.app.uploads import Limits, stored_bytes
from soundreel.errors import SoundreelError

CSS = """
button[aria-label='Trim video to selection'],
button[aria-label='Reset video to initial value'],
button[aria-label='Remove this file'] {display: none}
.upload .video-container {padding-top: 28px; box-sizing: border-box}
.block.status {min-height: 56px !important}
.block.status:has(> .wrap:not(.hide)) > :not(.wrap) {
  visibility: hidden; transition: none
}
.status .progress-text {position: static; transform: none}
.status .progress-level-inner {display: none}
.status .wrap {gap: 4px}
.wide {overflow-x: auto !important}
.wide img, .wide .image-container {width: 100%; min-width: 680px; max-width: none}
"""
"""Hides what fetches a program from elsewhere (the page's own fields choose a part) and what does
nothing here; keeps the buttons of an upload above its picture; shows progress and errors in
place of a line's own words; wide drawings scroll on a phone."""


def serve(
    page: gr.Blocks,
    *,
    host: str,
    port: int,
    limits: Limits,
    folder: Path,
    live: LiveFilms,
    **launch: Any,
) -> None:
    """Answer requests until interrupted.

    Args:
        folder: where uploads and results lie; nothing else of the machine's files can be fetched.
        live: films that play while they are made.

    Raises:
        SoundreelError: the port is taken.
    """
    try:
        page.queue(max_size=16).launch(
            server_name=host,
            server_port=port,
            max_file_size=f"{limits.upload_mb:g}mb",
            allowed_paths=[str(folder)],
            show_error=True,
            css=CSS,
            footer_links=[],
            app_kwargs={
                "middleware": [
                    Middleware(SameOrigin),
                    Middleware(RoomForUploads, folder=folder, most=1e6 * limits.stored_mb),
                ],
                "routes": [live.route()],
            },
            **launch,
        )
    except OSError as error:
        if "port" not in str(error):
            raise
        raise SoundreelError(f"port {port} is taken; choose another with --port") from None


class SameOrigin:
    """Refuse requests that a page of another site makes: their Origin is not this host.

    Args:
        app: the ASGI application behind.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin is None or urlsplit(origin).netloc == host:
            await self._app(scope, receive, send)
        else:
            refusal = PlainTextResponse("requests of other sites are refused", status_code=403)
            await refusal(scope, receive, send)


class RoomForUploads:
    """Refuse uploads that do not fit beside what is kept and what others are sending.

    Args:
        app: the ASGI application behind.
        folder: where uploads and results lie.
        most: bytes of all of them together.
    """

    def __init__(self, app: Any, folder: Path, most: float) -> None:
        self._app, self._folder, self._most = app, folder, most
        self._arriving = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/upload"):
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length")
        size = int(length) if length else 0
        if length is None:
            refusal = PlainTextResponse("an upload has to tell its size", status_code=411)
        elif stored_bytes(self._folder) + self._arriving + size > self._most:
            text = "no room for this upload; try again in an hour, when old files are gone"
            refusal = PlainTextResponse(text, status_code=507)
        else:
            self._arriving += size
            try:
                await self._app(scope, receive, send)
            finally:
                self._arriving -= size
            return
        await refusal(scope, receive, send)
