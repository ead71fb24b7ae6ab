"""`soundreel demo [MODEL]`: a page with clips that show what a model can do."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from soundreel.cli.main import write
from soundreel.cli.output import check_folder, clear_earlier
from soundreel.clip import Clip
from soundreel.data.scenes.clip import unseen_scene
from soundreel.data.scenes.render import KINDS
from soundreel.errors import SoundreelError
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.media.data_uri import frame_uri
from soundreel.media.gallery import Exhibit, write_gallery
from soundreel.progress import progress_bar
from soundreel.protocols import Pipeline, with_options
from soundreel.request import check_counts
from soundreel.systems import load

EARLIER = ("[0-9][0-9]-*.mp4", "[0-9][0-9]-*.png", "index.html")
SHOWN = 4
FIRST_KINDS = ("hammer", "fire", "bells", "waves")
GIVEN_VIDEO, GIVEN_AUDIO = "metronome", "lightning"


@dataclass(frozen=True, kw_only=True)
class DemoArguments:
    """Write four clips, sound for a video, pictures for a sound, and a page that shows them."""

    model: Annotated[str | None, tyro.conf.Positional] = None
    """A model folder, or owner/name on the Hub. Default: the model that comes with Soundreel."""
    out: Path = Path("demo")
    """Folder for clips and page; made if absent."""
    seed: int = 0
    """Seed of the first clip; the others take the numbers after it."""
    overwrite: bool = False
    """Replace the page that an earlier run left in --out."""
    device: str | None = None
    """Device to compute on: cpu, cuda, cuda:1 ... Default: CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] | None = None
    """Precision of the networks. Default: the model's own."""
    given: Path | None = None
    """A video with sound; its pictures get new sound, its sound gets new pictures. Default: for
    models of rendered scenes two new scenes, for others none."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clip to make: what for, and what `generate` is told."""

    title: str
    note: str
    request: dict[str, Any] = field(default_factory=dict)


def demo(arguments: Annotated[DemoArguments, tyro.conf.arg(name="")]) -> int:
    """Show on one page what a model can do."""
    out = arguments.out
    check_folder(out)
    check_counts(1, arguments.seed, 1)
    pipeline = load(arguments.model, device=arguments.device)
    precision: dict[str, Any] = {}
    if arguments.precision is not None:
        precision["precision"] = arguments.precision
    with_options(pipeline.options, precision)
    examples = _unconditional(pipeline) + _conditional(pipeline, arguments)
    clear_earlier(out, EARLIER, overwrite=arguments.overwrite)
    with progress_bar("sampling") as advance:
        clips = []
        for number, example in enumerate(examples):
            clips += pipeline.generate(seed=arguments.seed + number, **example.request, **precision)
            advance(number + 1, len(examples))
    out.mkdir(parents=True, exist_ok=True)
    exhibits = []
    for number, (example, clip) in enumerate(zip(examples, clips, strict=True), start=1):
        name = f"{number:02d}-{example.title.replace(' ', '-')}"
        clip.save(out / f"{name}.mp4")
        write_contact_sheet(out / f"{name}.png", clip, width=900)
        poster = "" if clip.frames is None else frame_uri(clip.frames[0])
        exhibits.append(
            Exhibit(
                title=example.title,
                note=example.note,
                video=f"{name}.mp4",
                sheet=f"{name}.png",
                poster=poster,
            )
        )
    spec = pipeline.clip
    page = write_gallery(
        out,
        exhibits,
        title="Soundreel",
        about=f"Clips of {spec.duration_s:g} s, {spec.num_frames} frames of {spec.width}x"
        f"{spec.height} pixels, sound at {spec.sample_rate / 1000:g} kHz; made by "
        f"{arguments.model or 'the model that comes with Soundreel'}.",
    )
    write(f"{len(clips)} clips, their contact sheets and a page of them all: {page}")
    return 0


def _unconditional(pipeline: Pipeline) -> list[Example]:
    """Show clips from noise: of as many classes as there are, or of none."""
    names = pipeline.class_names
    shown = [name for name in FIRST_KINDS if name in names] or list(names[:SHOWN])
    note = "Pictures and sound made together"
    if not shown:
        return [Example(title=f"clip {n}", note=f"{note}.") for n in range(1, SHOWN + 1)]
    return [
        Example(
            title=name.replace("_", " "),
            note=f"{note}, from the class.",
            request={"label": names.index(name)},
        )
        for name in shown
    ]


def _conditional(pipeline: Pipeline, arguments: DemoArguments) -> list[Example]:
    """Show sound for a video and pictures for a sound, if there is anything to give."""
    spec, names = pipeline.clip, pipeline.class_names
    if arguments.given is not None:
        clip = Clip.load(
            arguments.given,
            duration=spec.duration,
            frame_rate=spec.frame_rate,
            sample_rate=spec.sample_rate,
        )
        if clip.frames is None or clip.waveform is None:
            raise SoundreelError(f"--given {arguments.given}: needs pictures and sound")
        source = f"of {arguments.given.name}"
        seen = heard = clip
    elif names and set(names) <= set(KINDS):
        source = "rendered for this page"
        seen = unseen_scene(GIVEN_VIDEO, spec, arguments.seed)
        heard = unseen_scene(GIVEN_AUDIO, spec, arguments.seed)
    else:
        return []
    examples = [
        Example(
            title="sound for a video",
            note=f"Given: the pictures, {source}. Made: the sound.",
            request={"video": replace(seen, waveform=None)},
        ),
        Example(
            title="pictures for a sound",
            note=f"Given: the sound, {source}. Made: the pictures.",
            request={"audio": replace(heard, frames=None)},
        ),
    ]
    return [example for example in examples if example.request.keys() <= pipeline.conditions]
