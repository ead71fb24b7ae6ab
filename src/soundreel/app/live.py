"""A film that plays while it is made: the tab, and the address that its player reads."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from soundreel.app.fields import condition_fields, conditions, typed, whole
from soundreel.app.form import politely, settings, status_line
from soundreel.app.workshop import Workshop

MAX_KEPT = 16
"""Films that can be played; older ones are forgotten."""
PLAYER = (
    '<video src="/live/{name}.mp4" autoplay controls playsinline'
    ' style="width: 100%; max-height: min(420px, 90vw); background: black"></video>'
)
IDLE = "Press *Play*: the film begins as soon as its first seconds are made, and goes on."
STOP = """() => document.querySelectorAll("#live video").forEach((video) => {
    video.pause();
    video.removeAttribute("src");
    video.load();
})"""
"""Ends the request as well, so that the server stops making the film."""


class LiveFilms:
    """Films that were asked for, each under a name that nobody guesses.

    Whoever reads a film gets it from its beginning: players may ask more than once.
    """

    def __init__(self) -> None:
        self._films: OrderedDict[str, Callable[[], Iterator[bytes]]] = OrderedDict()

    def add(self, film: Callable[[], Iterator[bytes]]) -> str:
        """Return the name under which a film is played."""
        name = secrets.token_urlsafe(16)
        self._films[name] = film
        while len(self._films) > MAX_KEPT:
            self._films.popitem(last=False)
        return name

    def route(self) -> Route:
        """Return the address `/live/NAME.mp4`."""
        return Route("/live/{name}.mp4", self._answer)

    async def _answer(self, request: Request) -> Response:
        film = self._films.get(request.path_params["name"])
        if film is None:
            return PlainTextResponse("no such film; press Play again", status_code=404)
        headers = {"Cache-Control": "no-store"}
        return StreamingResponse(_closing(film()), media_type="video/mp4", headers=headers)


async def _closing(film: Any) -> Any:
    """Yield the bytes of a film, and end it where the player goes away."""
    try:
        while (data := await run_in_threadpool(next, film, None)) is not None:
            yield data
    finally:
        film.close()


def live_tab(workshop: Workshop, films: LiveFilms) -> None:
    """Play a film from nothing while it is made."""
    pipeline = workshop.pipeline
    with gr.Row():
        with gr.Column(scale=1):
            label, text = condition_fields(pipeline, given=False)
            with gr.Row():
                play = gr.Button("Play", variant="primary", min_width=80)
                stop = gr.Button("Stop", min_width=80)
            status = status_line(IDLE)
            seed, options = settings(pipeline.options, given=False)
        with gr.Column(scale=2):
            player = gr.HTML(elem_id="live", padding=False)
            about = gr.Markdown()

    def start(
        label: str | None, text: str, seed: int | float | None, *chosen: Any
    ) -> tuple[str, str]:
        asked = typed(pipeline.options, options, chosen)
        said = conditions(label, text)
        film, words = politely(lambda: workshop.live(seed=whole(seed), **said, **asked))
        return PLAYER.format(name=films.add(film)), words

    play.click(
        start, [label, text, seed, *options.values()], [player, about], show_progress_on=[status]
    )
    stop.click(None, js=STOP)
