"""`soundreel upscale CLIP... --model MODEL --out DIR`: larger frames, the same sound."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from soundreel.checkpoints.hub import resolve_model
from soundreel.cli.main import write
from soundreel.cli.progress import progress_bar
from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.systems.super_resolution.pipeline import SuperResolutionPipeline, UpscaleConfig


@dataclass(frozen=True, kw_only=True)
class UpscaleArguments:
    """Enlarge the frames of clips with a super-resolution model; the sound stays."""

    clips: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="CLIP...")]
    """Video files; frames as small as those the model was trained on come out best."""
    model: str
    """Model folder with a super-resolution network, or owner/name on the Hub."""
    out: Path
    """Folder for the enlarged clips; made if absent."""
    num_steps: int = 25
    """DDIM steps per frame: fewer are faster, smoother and often closer to the truth."""
    seed: int = 0
    """Of the noise; clip i uses seed + i, and all its frames share one noise image."""
    batch_frames: int = 4
    """Frames enlarged at once; more needs more memory."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 halves the work where the machine has fast instructions for it."""
    lossless: bool = False
    """Write Matroska files (FFV1, PCM) that hold exactly what the model made."""


def upscale(arguments: Annotated[UpscaleArguments, tyro.conf.arg(name="")]) -> int:
    """Enlarge clips with a super-resolution model."""
    config = UpscaleConfig(
        num_steps=arguments.num_steps,
        batch_frames=arguments.batch_frames,
        precision=arguments.precision,
    )
    targets = _targets(arguments)
    pipeline = SuperResolutionPipeline.load(resolve_model(arguments.model))
    for index, (source, target) in enumerate(targets.items()):
        clip = Clip.load(source)
        with progress_bar(source.name) as advance:
            enlarged = pipeline.upscale_clip(
                clip, seed=arguments.seed + index, config=config, progress=advance
            )
        arguments.out.mkdir(parents=True, exist_ok=True)
        enlarged.save(target)
        write(str(target))
    return 0


def _targets(arguments: UpscaleArguments) -> dict[Path, Path]:
    """Where each clip goes; refuses to begin what would overwrite a source or another result."""
    if arguments.out.exists() and not arguments.out.is_dir():
        raise SoundreelError(f"--out {arguments.out} is a file; give a folder")
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
        targets[source] = target
    return targets
