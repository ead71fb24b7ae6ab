"""The page around a workshop, in Gradio: one tab per task, progress, cancel, polite errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from soundreel.app.workshop import CancelledError, Made, Workshop
from soundreel.errors import SoundreelError

Result = TypeVar("Result")
Number = int | float
"""What a number field of the page gives."""

MAX_SEED = 2**31 - 1


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
                _upscale_tab(workshop, examples)
        with gr.Tab("Measure sync"):
            _sync_tab(workshop, examples)
    return page


def _generate_tab(workshop: Workshop, given: str | None, examples: list[Path]) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload(given, examples)
            class_name = gr.Dropdown(
                list(workshop.class_names), label="Class", visible=bool(workshop.class_names)
            )
            if workshop.class_names:
                class_name.value = workshop.class_names[0]
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
            count = gr.Slider(1, workshop.limits.count, 2, step=1, label="Number of clips")
            num_steps = gr.Slider(2, 100, 20, step=1, label="Steps")
            guidance = _guidance(workshop, given)
            start, stop = gr.Button("Make", variant="primary"), gr.Button("Cancel")
        clips, sheet = _results()

    def run(
        upload: str | None,
        class_name: str | None,
        seed: Number,
        count: Number,
        num_steps: Number,
        guidance: Number | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
    ) -> tuple[list[str], str]:
        if given is not None and upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        known = {} if given is None else {given: upload}
        made = _politely(
            lambda: workshop.generate(
                str(request.session_hash),
                class_name=class_name,
                count=int(count),
                seed=int(seed),
                num_steps=int(num_steps),
                guidance=None if guidance is None else float(guidance),
                progress=_shown(progress),
                **known,
            )
        )
        return _files(made)

    values = [upload, class_name, seed, count, num_steps, guidance]
    start.click(run, values, [clips, sheet], concurrency_limit=1)
    stop.click(_cancelling(workshop), queue=False)


def _upscale_tab(workshop: Workshop, examples: list[Path]) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = _upload("video", examples)
            num_steps = gr.Slider(2, 32, 5, step=1, label="Steps")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)
            start, stop = gr.Button("Enlarge", variant="primary"), gr.Button("Cancel")
        clips, sheet = _results()

    def run(
        upload: str | None,
        num_steps: Number,
        seed: Number,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio finds it
    ) -> tuple[list[str], str]:
        if upload is None:
            raise gr.Error("choose a file first", print_exception=False)
        made = _politely(
            lambda: workshop.upscale(
                str(request.session_hash),
                upload,
                num_steps=int(num_steps),
                seed=int(seed),
                progress=_shown(progress),
            )
        )
        return _files(made)

    start.click(run, [upload, num_steps, seed], [clips, sheet], concurrency_limit=1)
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


def _guidance(workshop: Workshop, given: str | None) -> gr.Slider:
    if workshop.has_guidance_scale:
        return gr.Slider(1, 8, 1, step=0.25, label="Guidance (1 is off)")
    return gr.Slider(
        0, 8, 2, step=0.5, label="How strongly what is given steers", visible=given is not None
    )


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
