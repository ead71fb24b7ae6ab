"""Write `docs/api.md` from the docstrings: `python docs/write_api.py`."""

import logging
import re
from dataclasses import fields
from pathlib import Path

import griffe
from griffe2md import ConfigDict, render_object_docs

from soundreel.systems import all_systems

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "api.md"

SECTIONS = {
    "What `import soundreel` gives": {
        "load": "systems.load",
        "render": "data.scenes.clip.render",
        "Clip": "clip.Clip",
        "ClipSpec": "types.ClipSpec",
        "AV": "types.AV",
        "MediaError": "media.errors.MediaError",
    },
    "Ways of asking": {
        "Lists and progress": "familiar.familiar",
        "Names of `diffusers`": "familiar.familiar_names",
    },
    "Generating": {
        "MMLDMPipeline.generate": "systems.mm_ldm.pipeline.MMLDMPipeline.generate",
        "JointFlowPipeline.generate": "systems.joint_flow.pipeline.JointFlowPipeline.generate",
        "MMDiffusionPipeline.generate": (
            "systems.mm_diffusion.pipeline.MMDiffusionPipeline.generate"
        ),
        "Films.stream": "films.Films.stream",
    },
    "Enlarging": {
        "soundreel.systems.load_upscaler": "systems.load_upscaler",
        "SuperResolutionPipeline.upscale_clip": (
            "systems.super_resolution.pipeline.SuperResolutionPipeline.upscale_clip"
        ),
    },
}
"""Headings of the page -> names of objects, and where they are below `soundreel`."""

BEGINNING = """# Python interface

This page is written by `python docs/write_api.py` from the docstrings.

```python
import soundreel

pipe = soundreel.load()                              # or a model folder, or owner/name on the Hub
(clip,) = pipe.generate(label="fire", seed=3)        # a notebook plays it
clip.save("fire.mp4")
(clip,) = pipe.generate(label="fire", video="talk.mp4", progress=True)
clips = pipe.generate(label=["fire", "rain"])        # one of each
```
"""

CONFIG = ConfigDict(
    docstring_section_style="list",
    filters=["!^_"],
    heading_level=3,
    members_order="source",
    show_if_no_docstring=False,
    show_signature_annotations=True,
    summary=False,
)


def api_page() -> str:
    """Return the text of the page."""
    logging.getLogger("griffe").setLevel(logging.ERROR)  # it misses types in short docstrings
    package = griffe.load("soundreel", search_paths=[str(ROOT / "src")], docstring_parser="google")
    parts = [BEGINNING]
    for heading, objects in SECTIONS.items():
        parts.append(f"## {heading}\n")
        parts += [_described(package[path], name) for name, path in objects.items()]
    parts.append("## Options\n\nFurther arguments of `generate` and `upscale_clip`, by system.\n")
    for system in all_systems():
        parts.append(f"### {system.name}\n\n| name | default | |\n| --- | --- | --- |")
        parts += [
            f"| `{entry.name}` | `{entry.default!r}` | {entry.metadata['help']} |"
            for entry in fields(system.options)
        ]
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _described(found: griffe.Object, name: str) -> str:
    """Return a heading of the object's public name, its signature and its docstring."""
    text = render_object_docs(found, CONFIG)
    text = re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", text)  # links to what is not on the page
    text = text.replace(f"`{found.canonical_path}`", name if " " in name else f"`{name}`")
    text = text.replace(f"`{found.canonical_path}.", f"`{name}.")
    text = re.sub(r"<code>([^<]*)</code>", r"`\1`", text)
    text = re.sub(r"\*\*(\w+),\*\* \(`([\w, ]+)`\)", r"**\1, \2**", text)  # two told at once
    text = re.sub(r"<summary>(.*)</summary>", r"**\1:**", text)
    text = re.sub(r"</?details[^>]*>", "", text)
    if " " in name:  # a topic, whose own signature is nobody's to call
        text = re.sub(r"```python\n.*?```\n", "", text, count=1, flags=re.DOTALL)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(api_page(), encoding="utf-8")
