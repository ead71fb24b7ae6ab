"""The page around a workshop, in Gradio: one tab per task, progress, cancel, polite errors."""

from typing import Any

import gradio as gr

from soundreel.app.examples import Examples
from soundreel.app.fields import (
    DRAWN,
    MODALITIES,
    Number,
    condition_fields,
    conditions,
    drawing,
    refusal,
    result_fields,
    seconds_field,
    shown,
    upload_field,
)
from soundreel.app.form import (
    QUEUE,
    Form,
    buttons_of,
    connect,
    politely,
    settings,
    status_line,
)
from soundreel.app.live import LiveFilms, live_tab
from soundreel.app.results import Made
from soundreel.app.workshop import Workshop

CHOOSE = "choose a file first"
PLAY = """() => {
    const play = () => {
        const video = document.querySelector("video");
        if (!video) { setTimeout(play, 200); return; }
        if (!video.paused) return;
        video.muted = true;
        video.play();
        addEventListener("click", () => { video.muted = false; }, {once: true});
    };
    setTimeout(play, 500);
}"""
"""Browsers play nothing aloud before the first click: the example plays muted until then."""


def build_page(workshop: Workshop, *, title: str, examples: Examples, live: LiveFilms) -> gr.Blocks:
    """Return the page: a tab for each task that the model does.

    Args:
        title: name of the model, shown at the top.
        live: takes the films that play while they are made, see `serve`.
    """
    spec, can = workshop.pipeline.clip, workshop.pipeline.conditions
    about = (
        "# Soundreel\nVideo and its sound, made together by a small model. "
        f"This is {title}: clips of {spec.duration_s:.1f} s, {spec.width}x{spec.height} pixels."
    )
    with gr.Blocks(title="Soundreel", delete_cache=(600, 3600)) as page:
        gr.Markdown(about)
        with gr.Tab("Clips with sound"):
            _clip_tab(workshop, page)
        if "after" in can:
            with gr.Tab("Longer"):
                _longer_tab(workshop, examples)
            with gr.Tab("Live"):
                live_tab(workshop, live)
        if "video" in can:
            with gr.Tab("Sound for a video"):
                _given_tab(workshop, "video", examples)
        if "audio" in can:
            with gr.Tab("Pictures for a sound"):
                _given_tab(workshop, "audio", examples)
        if workshop.upscaler is not None:
            with gr.Tab("Upscale"):
                _upscale_tab(workshop, workshop.upscaler.options, examples)
        with gr.Tab("Measure sync"):
            _sync_tab(workshop, examples)
        gr.Markdown("Uploads and results stay on the machine that serves this page, for an hour.")
    return page


def _clip_tab(workshop: Workshop, page: gr.Blocks) -> None:
    """Make clips from nothing; a finished example is shown when the page is opened."""
    pipeline = workshop.pipeline
    with gr.Row():
        with gr.Column(scale=1):
            given = list(condition_fields(pipeline, given=False))
            buttons = buttons_of("Make")
            seed, options = settings(pipeline.options, given=False)
        results = result_fields()

    def make(visitor: str, label: str | None, text: str, **how: Any) -> Made:
        return workshop.generate(visitor, **conditions(label, text), **how)

    form = Form(
        name="clip", given=given, seed=seed, options=options, defaults=pipeline.options, make=make
    )
    connect(workshop, form, buttons, results)
    page.load(
        lambda: shown(workshop.example()),
        None,
        results,
        concurrency_limit=1,
        concurrency_id=QUEUE,
    ).then(None, js=PLAY)


def _longer_tab(workshop: Workshop, examples: Examples) -> None:
    """Make films of any length, from nothing or from where a clip ends."""
    pipeline, limits = workshop.pipeline, workshop.limits
    with gr.Row():
        with gr.Column(scale=1):
            length = seconds_field(
                "Length in seconds",
                float(round(4 * pipeline.clip.duration_s)),
                f"Of the whole film, the clip below included; at most {limits.duration_s:g}.",
            )
            gr.Markdown("Go on from a clip, or leave this empty:")
            after = upload_field("video", examples.of("video"))
            modality = gr.Radio(list(MODALITIES), value="both", label="Go on with")
            label, text = condition_fields(pipeline, given=False)
            buttons = buttons_of("Make")
            seed, options = settings(pipeline.options, given=False)
        results = result_fields()

    def make(
        visitor: str,
        length: Number | None,
        after: str | None,
        modality: str,
        label: str | None,
        text: str,
        **how: Any,
    ) -> Made:
        if length is None:
            raise refusal("the length is empty; give a number of seconds")
        return workshop.film(
            visitor,
            duration_s=length,
            after=after,
            modality=MODALITIES[modality] if after is not None else "both",
            **conditions(label, text),
            **how,
        )

    form = Form(
        name="longer",
        given=[length, after, modality, label, text],
        seed=seed,
        options=options,
        defaults=pipeline.options,
        make=make,
        unit="frames",
    )
    connect(workshop, form, buttons, results)


def _given_tab(workshop: Workshop, given: str, examples: Examples) -> None:
    """Make sound for a video, or pictures for a sound, as long as it or a part of it."""
    pipeline = workshop.pipeline
    with gr.Row():
        with gr.Column(scale=1):
            upload = upload_field(given, examples.of(given))
            part = _part_fields(given, visible=workshop.makes_films)
            label, text = condition_fields(pipeline, given=True)
            buttons = buttons_of("Make")
            seed, options = settings(pipeline.options, given=True)
        results = result_fields()

    def make(
        visitor: str,
        upload: str | None,
        start: Number | None,
        length: Number | None,
        is_small: bool,
        label: str | None,
        text: str,
        **how: Any,
    ) -> Made:
        if upload is None:
            raise refusal(CHOOSE)
        known: dict[str, Any] = {given: upload}
        return workshop.film(
            visitor,
            **known,
            start_s=start or 0.0,
            duration_s=length or None,
            is_model_size=is_small,
            **conditions(label, text),
            **how,
        )

    form = Form(
        name=given,
        given=[upload, *part, label, text],
        seed=seed,
        options=options,
        defaults=pipeline.options,
        make=make,
        unit="frames" if workshop.makes_films else "steps",
    )
    connect(workshop, form, buttons, results)


def _part_fields(given: str, *, visible: bool) -> list[gr.Component]:
    """Return the fields of start, length and size of what is given."""
    with gr.Row(visible=visible):
        start = seconds_field("From second", 0.0)
        length = seconds_field("Seconds (0: to the end)", 0.0)
    kept = "Sound" if given == "audio" else "Picture"
    return [start, length, gr.Checkbox(label=f"{kept} as the model sees it", visible=visible)]


def _upscale_tab(workshop: Workshop, defaults: Any, examples: Examples) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = upload_field("video", examples.of("video"))
            buttons = buttons_of("Enlarge")
            seed, options = settings(defaults, given=True)
        results = result_fields()

    def make(visitor: str, upload: str | None, **how: Any) -> Made:
        if upload is None:
            raise refusal(CHOOSE)
        return workshop.upscale(visitor, upload, **how)

    form = Form(
        name="upscale", given=[upload], seed=seed, options=options, defaults=defaults, make=make
    )
    connect(workshop, form, buttons, results)


def _sync_tab(workshop: Workshop, examples: Examples) -> None:
    with gr.Row():
        with gr.Column(scale=1):
            upload = upload_field("video", examples.of("video"))
            start = gr.Button("Measure", variant="primary")
            status = status_line()
        with gr.Column(scale=2):
            words = gr.Markdown()
            picture = gr.HTML(elem_classes=["wide"])

    def run(upload: str | None) -> tuple[str, str]:
        if upload is None:
            raise refusal(CHOOSE)
        result, svg = politely(lambda: workshop.measure(upload))
        return f"{result.in_words()}\n\n{DRAWN}:", drawing(svg)

    start.click(
        run,
        [upload],
        [words, picture],
        concurrency_limit=1,
        concurrency_id=QUEUE,
        show_progress_on=[status],
    )
