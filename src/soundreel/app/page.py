"""The page around a workshop, in Gradio: one tab per task, progress, cancel, polite errors."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from soundreel.app.workshop import CancelledError, Made, Workshop
from soundreel.errors import SoundreelError
from soundreel.protocols import Upscaler

Result = TypeVar("Result")
Number = int | float
"""What a number field of the page gives."""

MAX_SEED = 2**31 - 1
ANY_CLASS = "any"


def build_page(workshop: Workshop, *, title: str, examples: list[Path]) -> gr.Blocks:
    """The whole page.

    Args:
        title: name of the model, shown at the top.
        examples: video files offered beside the uploads.
    """
    spec = workshop.pipeline.clip
    about = (
        f"# Soundreel\n{title}: clips of {spec.duration_s:.1f} s, {spec.num_frames} frames of "
        f"{spec.width}x{spec.height} pixels, with their sound at {spec.sample_rate / 1000:g} kHz. "
        "What you upload stays on the machine that serves this page and is deleted with it."
    )
    with gr.Blocks(title="Soundreel", delete_cache=(600, 3600)) as page:
        gr.Markdown(about)
        with gr.Tab("Clips with sound"):
            _generate_tab(workshop, None, examples)
        with gr.Tab("Sound for a video"):
            _generate_tab(workshop, "video", examples)
        with gr.Tab("Pictures for a sound"):
            _generate_tab(workshop, "audio", examples)
        if workshop.upscaler is not None:
            with gr.Tab("Upscale"):
                _upscale_tab(workshop, workshop.upscaler, examples)
        with gr.Tab("Measure sync"):
            _sync_tab(workshop, examples)
    return page


def _generate_tab(workshop: Workshop, given: str | None, examples: list[Path]) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload(given, examples)
            label = _classes(workshop)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
            count = gr.Slider(1, workshop.limits.count, 2, step=1, label="Number of clips")
            options = option_fields(workshop.pipeline.options, given=given is not None)
            start, stop = gr.Button("Make", variant="primary"), gr.Button("Cancel")
        clips, sheet = _results()

    def run(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
        *values: Any,
    ) -> tuple[list[str], str]:
        upload, label, seed, count, *chosen = values
        if given is not None and upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        known = {} if given is None else {given: upload}
        made = _politely(
            lambda: workshop.generate(
                str(request.session_hash),
                label=None if label == ANY_CLASS else label,
                count=int(count),
                seed=int(seed),
                progress=_shown(progress),
                **known,
                **_typed(workshop.pipeline.options, options, chosen),
            )
        )
        return _files(made)

    values = [upload, label, seed, count, *options.values()]
    start.click(run, values, [clips, sheet], concurrency_limit=1)
    stop.click(_cancelling(workshop), queue=False)


def _upscale_tab(workshop: Workshop, upscaler: Upscaler, examples: list[Path]) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload("video", examples)
            options = option_fields(upscaler.options, given=True)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
            start, stop = gr.Button("Enlarge", variant="primary"), gr.Button("Cancel")
        clips, sheet = _results()

    def run(
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
        *values: Any,
    ) -> tuple[list[str], str]:
        upload, seed, *chosen = values
        if upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        made = _politely(
            lambda: workshop.upscale(
                str(request.session_hash),
                upload,
                seed=int(seed),
                progress=_shown(progress),
                **_typed(upscaler.options, options, chosen),
            )
        )
        return _files(made)

    start.click(run, [upload, seed, *options.values()], [clips, sheet], concurrency_limit=1)
    stop.click(_cancelling(workshop), queue=False)


def _sync_tab(workshop: Workshop, examples: list[Path]) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload("video", examples)
            start = gr.Button("Measure", variant="primary")
        with gr.Column(scale=2):
            words = gr.Markdown()
            drawing = gr.Image(label="What starts in picture and sound", interactive=False)

    def run(upload: str | None) -> tuple[str, str]:
        if upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        result, picture = _politely(lambda: workshop.measure(upload))
        return result.in_words(), str(picture)

    start.click(run, [upload], [words, drawing], concurrency_limit=1)


def _upload(given: str | None, examples: list[Path]) -> gr.Component:
    if given is None:
        return gr.State(None)
    files = [[str(path)] for path in examples]
    if given == "audio":
        return gr.Audio(label="Sound", type="filepath", sources=["upload", "microphone"])
    upload = gr.Video(label="Video", sources=["upload"])
    if files:
        gr.Examples(files, [upload], label="Examples")
    return upload


def _classes(workshop: Workshop) -> gr.Component:
    """Return a choice of the model's classes; nothing to see for a model without."""
    names = workshop.pipeline.class_names
    if not names:
        return gr.State(ANY_CLASS)
    return gr.Dropdown([ANY_CLASS, *names], value=names[0], label="Class")


def option_fields(defaults: Any, *, given: bool) -> dict[str, gr.Component]:
    """Return a field for each option that visitors may set, with the model's own value in it.

    Args:
        given: whether video or audio is given, without which some options have no effect.
    """
    found: dict[str, gr.Component] = {}
    for entry in fields(defaults):
        value, details = getattr(defaults, entry.name), entry.metadata
        label = entry.name.replace("num_", "").replace("_", " ").capitalize()
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


def _results() -> tuple[gr.Gallery, gr.Image]:
    with gr.Column(scale=2):
        clips = gr.Gallery(label="Clips", columns=2, object_fit="contain", interactive=False)
        sheet = gr.Image(label="Frames over the spectrogram of their sound", interactive=False)
    return clips, sheet


def _files(made: Made) -> tuple[list[str], str]:
    return [str(path) for path in made.clips], str(made.sheet)


def _shown(progress: gr.Progress) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        progress((done, total), unit="steps")

    return show


def _cancelling(workshop: Workshop) -> Callable[[gr.Request], None]:
    def cancel(request: gr.Request) -> None:
        workshop.cancel(str(request.session_hash))

    return cancel


def _politely(action: Callable[[], Result]) -> Result:
    """The result, or a message on the page instead of a stack trace."""
    try:
        return action()
    except CancelledError:
        raise gr.Error("cancelled", title="Stopped", duration=3, print_exception=False) from None
    except SoundreelError as error:
        raise gr.Error(str(error), print_exception=False) from error


def serve(
    page: gr.Blocks, *, host: str, port: int, upload_mb: float, folder: Path, **launch: Any
) -> None:
    """Answer requests until interrupted.

    Args:
        folder: where results lie; nothing else of the machine's files can be fetched.
    """
    page.queue(max_size=16).launch(
        server_name=host,
        server_port=port,
        max_file_size=f"{upload_mb:g}mb",
        allowed_paths=[str(folder)],
        show_error=True,
        **launch,
    )
