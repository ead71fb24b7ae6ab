"""`soundreel generate MODEL --out DIR`: clips and a contact sheet from a trained model."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from soundreel.cli.main import write
from soundreel.cli.progress import progress_bar
from soundreel.diffusion.samplers import SAMPLERS
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.pipelines.load import load
from soundreel.pipelines.mm_diffusion import MMDiffusionPipeline


@dataclass(frozen=True, kw_only=True)
class GenerateArguments:
    """Make clips with sound and write them as MP4 files with a contact sheet."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model folder, for example RUN/model, or owner/name on the Hub."""
    out: Path
    """Folder for the clips; made if absent."""
    count: int = 4
    """How many clips."""
    seed: int = 0
    """Clip i is that of seed + i, whatever the count or batch size."""
    num_steps: int | None = None
    """Evaluations of the network; more is slower and closer to the model. Default: the model's."""
    sampler: str | None = None
    """How to get from noise to clip. Default: the model's."""
    batch_size: int = 4
    """Clips sampled at once; more needs more memory."""
    lossless: bool = False
    """Write Matroska files (FFV1, PCM) that hold exactly what the model made."""


def generate(arguments: Annotated[GenerateArguments, tyro.conf.arg(name="")]) -> int:
    """Make clips with sound from a trained model."""
    if arguments.sampler is not None and arguments.sampler not in SAMPLERS:
        raise ValueError(f"--sampler: one of {', '.join(SAMPLERS)}, got {arguments.sampler!r}")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out {arguments.out} is a file; give a folder")
    pipeline = load(arguments.model)
    sample = pipeline.generate
    if arguments.sampler is not None:
        if not isinstance(pipeline, MMDiffusionPipeline):
            raise ValueError(f"--sampler: {arguments.model} has one sampler only; leave it out")
        sample = partial(pipeline.generate, sampler=arguments.sampler)
    with progress_bar("sampling") as advance:
        clips = sample(
            count=arguments.count,
            seed=arguments.seed,
            num_steps=arguments.num_steps,
            batch_size=arguments.batch_size,
            progress=advance,
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    suffix = ".mkv" if arguments.lossless else ".mp4"
    names = [f"clip-{arguments.seed + index:04d}" for index in range(len(clips))]
    for name, clip in zip(names, clips, strict=True):
        clip.save(arguments.out / f"{name}{suffix}")
    sheet = arguments.out / "contact-sheet.png"
    write_contact_sheet(sheet, clips, titles=names)
    write(f"{len(clips)} clips in {arguments.out}, contact sheet {sheet}")
    return 0
