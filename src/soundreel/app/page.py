"""The page around a workshop, in Gradio: one tab per task, progress, cancel, polite errors."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from soundreel.app.workshop import CancelledError, Made, Workshop, option_label
from soundreel.errors import SoundreelError
from soundreel.protocols import Upscaler

Result = TypeVar("Result")
Number = int | float
"""Value of a number field of the page."""

MAX_SEED = 2**31 - 1
ANY_CLASS = "any"
QUEUE = "network"
"""Name of the line in which visitors wait: one request at a time uses the network."""


def build_page(workshop: Workshop, *, title: str, examples: list[Path]) -> gr.Blocks:
    """Return the page: a tab for each task.

    Args:
        title: name of the model, shown at the top.
        examples: video files offered beside the uploads.
    """
    spec = workshop.pipeline.clip
    about = (
        "# Soundreel\nVideo and its sound, made together by a small model. "
        f"This is {title}: clips of {spec.duration_s:.1f} s, {spec.width}x{spec.height} pixels."
    )
    with gr.Blocks(title="Soundreel", delete_cache=(600, 3600)) as page:
        gr.Markdown(about)
        with gr.Tab("Clips with sound"):
            _generate_tab(workshop, None, examples, page)
        with gr.Tab("Sound for a video"):
            _generate_tab(workshop, "video", examples)
        with gr.Tab("Pictures for a sound"):
            _generate_tab(workshop, "audio", examples)
        if workshop.upscaler is not None:
            with gr.Tab("Upscale"):
                _upscale_tab(workshop, workshop.upscaler, examples)
        with gr.Tab("Measure sync"):
            _sync_tab(workshop, examples)
        gr.Markdown("Uploads and results stay on the machine that serves this page, for an hour.")
    return page


def _generate_tab(
    workshop: Workshop, given: str | None, examples: list[Path], page: gr.Blocks | None = None
) -> None:
    """Add the fields, buttons and results of a tab.

    Args:
        page: where a finished example is shown when it is opened.
    """
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload(given, examples)
            label = _classes(workshop)
            can_read = "text" in workshop.pipeline.conditions
            text = gr.Textbox(label="Caption") if can_read else gr.State("")
            start = gr.Button("Make", variant="primary")
            again, stop = gr.Button("Again with another seed"), gr.Button("Cancel")
            with gr.Accordion("Settings", open=False):
                seed = _seed()
                options = option_fields(workshop.pipeline.options, given=given is not None)
        results = _results()

    run = _maker(workshop, given, options)
    values = [upload, label, text, seed, *options.values()]
    events = [start.click(run, values, results, concurrency_limit=1, concurrency_id=QUEUE)]
    drawn = again.click(_another_seed, [seed], [seed], queue=False)
    events.append(drawn.then(run, values, results, concurrency_limit=1, concurrency_id=QUEUE))
    # Gradio calls what a click returns a dependency, and takes those back here.
    stop.click(_cancelling(workshop), cancels=events, queue=False)  # pyrefly: ignore
    if page is not None:
        page.load(
            lambda: _shown_files(workshop.example()),
            None,
            results,
            concurrency_limit=1,
            concurrency_id=QUEUE,
        )


def _maker(
    workshop: Workshop, given: str | None, options: dict[str, gr.Component]
) -> Callable[..., tuple[Any, ...]]:
    """Return what the button of a tab does, from the values of its fields to the results."""

    def run(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
        *values: Any,
    ) -> tuple[Any, ...]:
        upload, label, text, seed, *chosen = values
        if given is not None and upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        known = {} if given is None else {given: upload}
        if text:
            known["text"] = text
        made = _politely(
            lambda: workshop.generate(
                str(request.session_hash),
                label=None if label == ANY_CLASS else label,
                seed=_whole(seed),
                progress=_shown(progress),
                **known,
                **_typed(workshop.pipeline.options, options, chosen),
            )
        )
        return _shown_files(made)

    return run


def _upscale_tab(workshop: Workshop, upscaler: Upscaler, examples: list[Path]) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload("video", examples)
            start, stop = gr.Button("Enlarge", variant="primary"), gr.Button("Cancel")
            with gr.Accordion("Settings", open=False):
                options = option_fields(upscaler.options, given=True)
                seed = _seed()
        results = _results()

    def run(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
        *values: Any,
    ) -> tuple[Any, ...]:
        upload, seed, *chosen = values
        if upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        made = _politely(
            lambda: workshop.upscale(
                str(request.session_hash),
                upload,
                seed=_whole(seed),
                progress=_shown(progress),
                **_typed(upscaler.options, options, chosen),
            )
        )
        return _shown_files(made)

    values = [upload, seed, *options.values()]
    event = start.click(run, values, results, concurrency_limit=1, concurrency_id=QUEUE)
    stop.click(_cancelling(workshop), cancels=[event], queue=False)


def _sync_tab(workshop: Workshop, examples: list[Path]) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload("video", examples)
            start = gr.Button("Measure", variant="primary")
        with gr.Column(scale=2):
            words = gr.Markdown()
            drawing = gr.Image(
                label="What starts in picture and sound", interactive=False, buttons=["fullscreen"]
            )

    def run(upload: str | None) -> tuple[str, str]:
        if upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        result, picture = _politely(lambda: workshop.measure(upload))
        return result.in_words(), str(picture)

    start.click(run, [upload], [words, drawing], concurrency_limit=1, concurrency_id=QUEUE)


def _upload(given: str | None, examples: list[Path]) -> gr.Component:
    if given is None:
        return gr.State(None)
    files = [[str(path)] for path in examples]
    if given == "audio":
        return gr.Audio(label="Sound", type="filepath", sources=["upload", "microphone"])
    upload = gr.Video(label="Video", sources=["upload"], buttons=[])
    if files:
        gr.Examples(files, [upload], label="Examples")
    return upload


def _classes(workshop: Workshop) -> gr.Component:
    """Return a choice of the model's classes; nothing to see for a model without."""
    names = workshop.pipeline.class_names
    if not names:
        return gr.State(ANY_CLASS)
    return gr.Dropdown([ANY_CLASS, *names], value=names[0], label="Class")


def _seed() -> gr.Number:
    return gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)


def _whole(seed: Number | None) -> int:
    """Return the seed, or ask for one where its field is empty."""
    if seed is None:
        raise gr.Error("the seed is empty; give a whole number such as 0", print_exception=False)
    return int(seed)


def _another_seed(seed: Number | None) -> int:
    """Return the seed after this one."""
    return (0 if seed is None else int(seed) + 1) % MAX_SEED


def option_fields(defaults: Any, *, given: bool) -> dict[str, gr.Component]:
    """Return a field for each option that visitors may set, with the model's own value in it.

    Args:
        given: whether video or audio is given, without which some options have no effect.
    """
    found: dict[str, gr.Component] = {}
    for entry in fields(defaults):
        value, details = getattr(defaults, entry.name), entry.metadata
        label = option_label(entry.name).capitalize()
        hidden = not details["on_page"] or (details["given_only"] and not given)
        if hidden or isinstance(value, tuple):  # a pair of scales stays the model's own
            continue
        if details["choices"]:
            found[entry.name] = gr.Dropdown(
                list(details["choices"]), value=value, label=label, info=details["help"]
            )
        elif isinstance(value, bool):
            found[entry.name] = gr.Checkbox(value, label=label, info=details["help"])
        elif isinstance(value, int | float):
            high = max(details["high"] or value, value)
            step = 1 if isinstance(value, int) else 0.25
            found[entry.name] = gr.Slider(
                details["low"] or 0, high, value, step=step, label=label, info=details["help"]
            )
    return found


def _typed(defaults: Any, names: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    """Return the values of fields as the types that the options have: a slider gives 2.0 for 2."""
    return {
        name: type(getattr(defaults, name))(value)
        for name, value in zip(names, values, strict=True)
    }


def _results() -> list[gr.Component]:
    """Return where a clip is shown: the clip, what made it, its sheet, and files to keep."""
    with gr.Column(scale=2):
        return [
            gr.Video(
                show_label=False,  # it would cover the picture
                autoplay=True,
                loop=True,
                interactive=False,
                buttons=[],
                height=420,
            ),
            gr.Markdown(),
            gr.Image(
                show_label=False,
                interactive=False,
                buttons=["fullscreen"],
                alt_text="Frames over the spectrogram of their sound",
            ),
            gr.File(label="Download", interactive=False),
        ]


def _shown_files(made: Made) -> tuple[Any, ...]:
    files = [str(path) for path in (made.clip, made.gif) if path is not None]
    return str(made.clip), made.about, str(made.sheet), files


def _shown(progress: gr.Progress) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        progress((done, total), unit="steps")

    return show


def _cancelling(workshop: Workshop) -> Callable[[gr.Request], None]:
    def cancel(request: gr.Request) -> None:
        workshop.cancel(str(request.session_hash))

    return cancel


def _politely(action: Callable[[], Result]) -> Result:
    """Return the result, or show a message on the page instead of a stack trace."""
    try:
        return action()
    except CancelledError:
        raise gr.Error("cancelled", title="Stopped", duration=3, print_exception=False) from None
    except SoundreelError as error:
        raise gr.Error(str(error), print_exception=False) from error
