"""`soundreel upscale CLIP... --model MODEL --out DIR`: larger frames, the same sound."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from soundreel.cli.main import write
from soundreel.cli.options import given_flags, with_flags
from soundreel.cli.output import check_folder
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.progress import progress_bar
from soundreel.protocols import with_options
from soundreel.request import check_counts
from soundreel.systems import all_systems, load_upscaler


@dataclass(frozen=True, kw_only=True)
class UpscaleArguments:
    """Enlarge the frames of clips with a super-resolution model; the sound stays."""

    clips: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CLIP...")]
    """Video files; frames as small as those the model was trained on come out best."""
    model: str
    """Model folder with a super-resolution network, or owner/name on the Hub."""
    out: Path
    """Folder for the enlarged clips; made if absent."""
    seed: int = 0
    """Seed of the noise: clip i uses seed + i, and all its frames share one noise image."""
    lossless: bool = False
    """Write Matroska files (FFV1, PCM) that hold exactly what the model made."""
    overwrite: bool = False
    """Replace results of an earlier run in --out."""
    device: str | None = None
    """Device to compute on: cpu, cuda, cuda:1 ... Default: CUDA where there is one."""


def upscale(words: list[str]) -> int:
    """Enlarge clips with a super-resolution model."""
    kinds = [entry.options for entry in all_systems() if entry.upscales]
    arguments = tyro.cli(
        with_flags(UpscaleArguments, kinds),
        args=words,
        prog="soundreel upscale",
        use_underscores=False,
    )
    targets = _targets(arguments)
    check_counts(len(targets), arguments.seed, 1)
    pipeline = load_upscaler(arguments.model, device=arguments.device)
    options = given_flags(arguments)
    with_options(pipeline.options, options)
    for index, (source, target) in enumerate(targets.items()):
        clip = Clip.load(source)
        with progress_bar(source.name) as advance:
            enlarged = pipeline.upscale_clip(
                clip, seed=arguments.seed + index, progress=advance, **options
            )
        arguments.out.mkdir(parents=True, exist_ok=True)
        enlarged.save(target)
        write(str(target))
    return 0


def _targets(arguments: UpscaleArguments) -> dict[Path, Path]:
    """Return where each clip goes; refuse to begin what would overwrite a file.

    Raises:
        SoundreelError: a target is a source, another clip's target, or there already.
    """
    check_folder(arguments.out)
    if not arguments.clips:
        raise SoundreelError("no clip given; name at least one video file")
    suffix = ".mkv" if arguments.lossless else ".mp4"
    targets: dict[Path, Path] = {}
    for source in arguments.clips:
        target = arguments.out / f"{source.stem}{suffix}"
        if target in targets.values() or source in targets:
            raise SoundreelError(
                f"{source}: another clip is written to {target} already; rename one"
            )
        if target.exists() and source.exists() and target.samefile(source):
            raise SoundreelError(f"{source}: would be overwritten; choose another folder for --out")
        if target.exists() and not arguments.overwrite:
            raise SoundreelError(f"{target} exists; add --overwrite, or choose another --out")
        targets[source] = target
    return targets
