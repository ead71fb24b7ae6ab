"""Fields of the page: what visitors give and set, and where results are shown."""

from base64 import b64encode
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import gradio as gr

from soundreel.app.results import Made, option_label
from soundreel.film_clock import Modality
from soundreel.protocols import Pipeline

Number = int | float
"""Value of a number field of the page."""

MAX_SEED = 2**31 - 1
ANY_CLASS = "any"
DRAWN = "What starts in the picture (above) and in the sound (below), over time"
MODALITIES: dict[str, Modality] = {
    "both": "both",
    "only the sound": "audio",
    "only the pictures": "video",
}
"""Choices of what a film goes on with -> the pipeline's own words."""


def upload_field(given: str, examples: list[Path]) -> gr.Component:
    """Return where a video or a sound is uploaded, with examples of it below."""
    look: dict[str, Any] = {"show_label": False, "buttons": [], "elem_classes": ["upload"]}
    if given == "audio":
        upload = gr.Audio(label="Sound", type="filepath", sources=["upload", "microphone"], **look)
    else:
        upload = gr.Video(label="Video", sources=["upload"], height=240, **look)
    if examples:
        gr.Examples([[str(path)] for path in examples], [upload], label="Examples")
    return upload


def condition_fields(pipeline: Pipeline, *, given: bool) -> tuple[gr.Component, gr.Component]:
    """Return a choice of the model's classes and a caption; nothing to see where it has none.

    Args:
        given: whether video or audio is given, which says itself what it is: any class then.
    """
    names, can_read = pipeline.class_names, "text" in pipeline.conditions
    choices = [ANY_CLASS, *names]
    label = gr.Dropdown(choices, value=choices[not given], label="Class") if names else gr.State()
    text = gr.Textbox(label="Caption", info="Empty: anything.") if can_read else gr.State("")
    return label, text


def conditions(label: str | None, text: str) -> dict[str, Any]:
    """Return what those fields say, as arguments of the workshop."""
    return {"label": None if label == ANY_CLASS else label, "text": text.strip()}


def seed_field() -> gr.Number:
    """Return the field of the seed."""
    return gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED)


def seconds_field(label: str, value: float, info: str | None = None) -> gr.Number:
    """Return a field of seconds."""
    return gr.Number(value, label=label, info=info, minimum=0, step=0.1, min_width=120)


def whole(seed: Number | None) -> int:
    """Return the seed, or ask for one where its field is empty."""
    if seed is None:
        raise refusal("the seed is empty; give a whole number such as 0")
    return int(seed)


def another_seed(seed: Number | None) -> int:
    """Return the seed after this one."""
    return (0 if seed is None else int(seed) + 1) % MAX_SEED


def refusal(text: str) -> gr.Error:
    """Return a message of one line for the visitor."""
    return gr.Error(text, print_exception=False)


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


def typed(defaults: Any, names: Iterable[str], values: Iterable[Any]) -> dict[str, Any]:
    """Return the values of fields as the types that the options have: a slider gives 2.0 for 2."""
    return {
        name: type(getattr(defaults, name))(value)
        for name, value in zip(names, values, strict=True)
    }


def result_fields() -> list[gr.Component]:
    """Return where a clip is shown: the clip, what made it, its sheet, and files to keep."""
    with gr.Column(scale=2, elem_classes=["result"]):
        return [
            gr.Video(
                show_label=False,  # it would cover the picture
                autoplay=True,
                loop=True,
                interactive=False,
                buttons=[],
                height="min(420px, 90vw)",
            ),
            gr.Audio(
                show_label=False,
                autoplay=True,
                loop=True,
                interactive=False,
                buttons=[],
                visible=False,
            ),
            gr.Markdown(),
            gr.Image(
                show_label=False,
                interactive=False,
                buttons=[],  # they would cover the sheet's own text
                elem_classes=["wide"],
                alt_text="Frames over the spectrogram of their sound",
                visible=False,
            ),
            gr.File(label="Download", interactive=False, visible=False),
        ]


def drawing(svg: str) -> str:
    """Return a drawing as HTML, apart from the page's own styles."""
    data = b64encode(svg.encode()).decode()
    return f"<img alt='{DRAWN}' src='data:image/svg+xml;base64,{data}'>"


def shown(made: Made) -> tuple[Any, ...]:
    """Return the values of the result's fields; a sound alone is shown as one."""
    files = [str(path) for path in (made.clip, made.gif, made.sheet) if path is not None]
    clip, seen = str(made.clip), made.has_picture
    return (
        gr.Video(clip if seen else None, visible=seen),
        gr.Audio(None if seen else clip, visible=not seen),
        made.about,
        gr.Image(str(made.sheet), visible=True),
        gr.File(files, visible=True),
    )
