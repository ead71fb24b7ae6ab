"""A tab's fields and buttons: start, another seed, cancel; progress; errors in words."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import gradio as gr

from soundreel.app.fields import (
    another_seed,
    option_fields,
    refusal,
    seed_field,
    shown,
    typed,
    whole,
)
from soundreel.app.results import Made
from soundreel.app.turns import CancelledError
from soundreel.app.workshop import Workshop
from soundreel.errors import SoundreelError
from soundreel.protocols import Progress

Result = TypeVar("Result")
QUEUE = "network"
"""Name of the line in which visitors wait: one request at a time uses the network."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """Fields of one tab, and what its buttons do with them.

    Attributes:
        name: of the tab's task; a visitor cancels what was started here alone.
        given: what its first fields hold, passed to `make` as it is.
        options: fields of the model's options, whose defaults are `defaults`.
        unit: that progress is counted in.
        make: (visitor, values of `given`, seed, progress, options) -> files of the result.
    """

    name: str
    given: list[gr.Component]
    seed: gr.Number
    options: dict[str, gr.Component]
    defaults: Any
    make: Callable[..., Made]
    unit: str = "steps"

    def run(
        self,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
        *values: Any,
    ) -> tuple[Any, ...]:
        """Make what the fields say, and return the values of the result's fields."""
        count = len(self.given)
        given, seed, chosen = values[:count], values[count], values[count + 1 :]
        options = typed(self.defaults, self.options, chosen)
        made = politely(
            lambda: self.make(
                self.visitor(request),
                *given,
                seed=whole(seed),
                progress=_told(progress, self.unit),
                **options,
            )
        )
        return shown(made)

    def visitor(self, request: gr.Request) -> str:
        return f"{request.session_hash} {self.name}"


def status_line(words: str = "") -> gr.Markdown:
    """Return a line whose words give way to progress and errors: where the finger is on a phone."""
    return gr.Markdown(words, elem_classes=["status"])


def buttons_of(start: str) -> tuple[gr.Button, gr.Button, gr.Button, gr.Markdown]:
    """Return the buttons that start, take another seed and cancel, and where progress is shown."""
    begin = gr.Button(start, variant="primary")
    status = status_line("One request at a time; *Cancel* takes yours back.")
    with gr.Row():
        again = gr.Button("Again with another seed", size="md", scale=5, min_width=200)
        stop = gr.Button("Cancel", size="md", scale=2, min_width=80)
    return begin, again, stop, status


def connect(
    workshop: Workshop,
    form: Form,
    buttons: tuple[gr.Button, gr.Button, gr.Button, gr.Markdown],
    results: list[gr.Component],
) -> None:
    """Let the buttons do what the form says."""
    begin, again, stop, status = buttons
    values = [*form.given, form.seed, *form.options.values()]
    how: dict[str, Any] = {
        "concurrency_limit": 1,
        "concurrency_id": QUEUE,
        "show_progress_on": [status],
    }
    events = [begin.click(form.run, values, results, **how)]
    drawn = again.click(another_seed, [form.seed], [form.seed], queue=False)
    events.append(drawn.then(form.run, values, results, **how))

    def cancel(request: gr.Request) -> tuple[Any, ...]:
        made = workshop.cancel(form.visitor(request))
        return tuple(gr.skip() for _ in results) if made is None else shown(made)

    # Gradio calls what a click returns a dependency, and takes those back here.
    stop.click(cancel, None, results, cancels=events, queue=False, show_progress_on=[status])  # pyrefly: ignore


def settings(defaults: Any, *, given: bool) -> tuple[gr.Number, dict[str, gr.Component]]:
    """Return the fields of seed and options, folded away."""
    with gr.Accordion("Settings", open=False):
        return seed_field(), option_fields(defaults, given=given)


def _told(progress: gr.Progress, unit: str) -> Progress:
    def tell(done: int, total: int) -> None:
        progress((done, total), unit=unit)

    return tell


def politely(action: Callable[[], Result]) -> Result:
    """Return the result, or show a message on the page instead of a stack trace."""
    try:
        return action()
    except CancelledError:
        raise gr.Error("cancelled", title="Stopped", duration=3, print_exception=False) from None
    except SoundreelError as error:
        raise refusal(str(error)) from error
