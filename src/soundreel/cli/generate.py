"""`soundreel generate MODEL --out DIR`: clips and a contact sheet from a trained model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from soundreel.checkpoints.text_encoder import load_text_encoder
from soundreel.cli.main import write
from soundreel.cli.progress import progress_bar
from soundreel.clip import Clip
from soundreel.diffusion.samplers import SAMPLERS
from soundreel.errors import SoundreelError
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.systems.load import Pipeline, load
from soundreel.systems.mm_diffusion.pipeline import MMDiffusionPipeline
from soundreel.systems.mm_ldm.pipeline import MMLDMPipeline
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline


@dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Make clips with sound and write them as MP4 files with a contact sheet."""

    model: Annotated[str | None, tyro.conf.Positional] = None
    """A model folder, for example RUN/model, or owner/name on the Hub. Default: the model that
    comes with Soundreel."""
    out: Path
    """Folder for the clips; made if absent."""
    count: int = 4
    """How many clips."""
    seed: int = 0
    """Clip i is that of seed + i, whatever the count or batch size."""
    video: Path | None = None
    """A video whose pictures are kept and given sound."""
    audio: Path | None = None
    """A sound, or a video with one, that is kept and given pictures."""
    label: int | None = None
    """Class number, for MM-LDM models trained with classes."""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Class by its name, in place of --label."""
    text: str | None = None
    """Caption, for MM-LDM models trained with a text encoder."""
    text_encoder: Path | None = None
    """Folder of that text encoder. Default: where it was in training."""
    num_steps: int | None = None
    """Evaluations of the network; more is slower and closer to the model. Default: the model's."""
    sampler: str | None = None
    """How MM-Diffusion gets from noise to clip. Default: the model's."""
    guidance_scale: float | None = None
    """Of MM-LDM's generator, away from what it makes unasked; 1 is off. Default: the model's."""
    guidance_weight: float | None = None
    """How strongly --video or --audio steers MM-Diffusion; 0 is faster and looser."""
    batch_size: int = 4
    """Clips sampled at once; more needs more memory."""
    upscale: Path | None = None
    """A super-resolution model that enlarges every frame."""
    lossless: bool = False
    """Write Matroska files (FFV1, PCM) that hold exactly what the model made."""


def generate(arguments: Annotated[GenerateArguments, tyro.conf.arg(name="")]) -> int:
    """Make clips with sound from a trained model."""
    if arguments.out.exists() and not arguments.out.is_dir():
        raise SoundreelError(f"--out {arguments.out} is a file; give a folder")
    pipeline = load(arguments.model)
    options = _options(arguments, pipeline)
    upscaler = (
        None if arguments.upscale is None else SuperResolutionPipeline.load(arguments.upscale)
    )
    with progress_bar("sampling") as advance:
        clips = pipeline.generate(**options, progress=advance)
    if upscaler is not None:
        clips = [
            upscaler.upscale_clip(clip, seed=arguments.seed + index)
            for index, clip in enumerate(clips)
        ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    suffix = ".mkv" if arguments.lossless else ".mp4"
    names = [f"clip-{arguments.seed + index:04d}" for index in range(len(clips))]
    for name, clip in zip(names, clips, strict=True):
        clip.save(arguments.out / f"{name}{suffix}")
    sheet = arguments.out / "contact-sheet.png"
    write_contact_sheet(sheet, clips, titles=names)
    write(f"{len(clips)} clips in {arguments.out}, contact sheet {sheet}")
    return 0


OWN = {
    MMDiffusionPipeline: ("num_steps", "sampler", "guidance_weight"),
    MMLDMPipeline: ("num_steps", "guidance_scale", "label", "class_name", "text", "text_encoder"),
}
"""Flags that only some systems have."""


def _resolve_words(options: dict[str, Any], pipeline: MMLDMPipeline) -> None:
    """Turn the name of a class into its number, and give the pipeline its text encoder."""
    name = options.pop("class_name", None)
    if name is not None:
        names = pipeline.settings.class_names
        if "label" in options:
            raise SoundreelError("--label and --class say the same; give one of them")
        if name not in names:
            raise SoundreelError(f"--class: one of {', '.join(names) or 'none'}, got {name!r}")
        options["label"] = names.index(name)
    folder = options.pop("text_encoder", None)
    if folder is not None:
        pipeline.text_encoder = load_text_encoder(
            replace(pipeline.settings.text, folder=str(folder))
        )


def _options(arguments: GenerateArguments, pipeline: Pipeline) -> dict[str, Any]:
    """What the command line says, as arguments of the pipeline's `generate`.

    Raises:
        SoundreelError: a flag that this system does not have.
    """
    if arguments.sampler is not None and arguments.sampler not in SAMPLERS:
        raise SoundreelError(f"--sampler: one of {', '.join(SAMPLERS)}, got {arguments.sampler!r}")
    own = OWN[type(pipeline)]
    options: dict[str, Any] = {}
    for name in dict.fromkeys(name for names in OWN.values() for name in names):
        value = getattr(arguments, name)
        if value is None:
            continue
        if name not in own:
            flag = "class" if name == "class_name" else name.replace("_", "-")
            name = arguments.model or "the default model"
            raise SoundreelError(f"--{flag}: {name} has no such setting; leave it out")
        options[name] = value
    if isinstance(pipeline, MMLDMPipeline):
        _resolve_words(options, pipeline)
    spec = pipeline.clip
    for name in ("video", "audio"):
        path = getattr(arguments, name)
        if path is not None:
            options[name] = Clip.load(
                path,
                duration=spec.duration,
                frame_rate=spec.frame_rate,
                sample_rate=spec.sample_rate,
            )
    return {
        "count": arguments.count,
        "seed": arguments.seed,
        "batch_size": arguments.batch_size,
        **options,
    }
