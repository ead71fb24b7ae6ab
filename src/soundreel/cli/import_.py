"""`soundreel import mm-diffusion|stable-diffusion FILE... DEST`: official checkpoints in."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Union

import tyro

from soundreel.cli.main import write
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.import_official import ImportOptions, import_mm_diffusion
from soundreel.systems.mm_ldm.stable_diffusion_folder import import_stable_diffusion
from soundreel.types import ClipSpec


@dataclass(frozen=True, kw_only=True)
class MMDiffusionArguments:
    """MM-Diffusion's Landscape.pt, AIST++.pt, *_SR.pt; guided diffusion's 64-to-256 upsampler."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE... DEST")]
    """A base checkpoint, a super-resolution checkpoint, or both; then the model folder to make."""
    num_frames: int = 16
    """Frames of the base model's clips."""
    size: int = 64
    """Pixels along each side of the base model's frames."""
    frame_rate: str = "10"
    """Frames per second of the base model's clips: a number or a fraction."""
    sample_rate: int = 16_000
    """Samples per second of the base model's sound."""
    num_heads: int = 4
    """Self-attention heads of both networks."""
    cross_head_width: int = 64
    """Channels per head in cross-modal attention; 0 uses --num-heads heads."""
    cross_attention_windows: tuple[int, ...] = ()
    """Frames per attention window, level by level; only where they are not 1, 4, 8."""
    low_res_size: int = 64
    """Pixels along each side of the super-resolution network's small images."""
    large_size: int = 256
    """Pixels along each side of its large images."""


@dataclass(frozen=True, kw_only=True)
class StableDiffusionArguments:
    """Stable Diffusion v1's autoencoder and U-Net, to start MM-LDM from."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE... DEST")]
    """A full checkpoint, or single files of the autoencoder and the U-Net, as CompVis or diffusers
    lay them out; then the folder to make."""


Arguments = Union[  # noqa: UP007 (operands of | must be types)
    Annotated[MMDiffusionArguments, tyro.conf.subcommand("mm-diffusion", prefix_name=False)],
    Annotated[
        StableDiffusionArguments, tyro.conf.subcommand("stable-diffusion", prefix_name=False)
    ],
]


def import_(arguments: Annotated[Arguments, tyro.conf.arg(name="")]) -> int:
    """Turn official checkpoints into a model folder.

    Files are read without running any code in them, and every tensor is accounted for.
    """
    *files, target = arguments.paths or (None,)
    if not files or target is None:
        raise SoundreelError("give the checkpoint files and, last, the folder to make")
    if isinstance(arguments, StableDiffusionArguments):
        for line in import_stable_diffusion(files, target):
            write(line)
    else:
        for component in import_mm_diffusion(files, target, _options(arguments)):
            left_out = f"; left out {', '.join(component.ignored)}" if component.ignored else ""
            write(
                f"{component.path} -> {target / component.name}: {component.num_tensors} tensors, "
                f"{component.num_parameters:,} parameters{left_out}"
            )
    write(f"model: {target}")
    return 0


def _options(arguments: MMDiffusionArguments) -> ImportOptions:
    return ImportOptions(
        clip=ClipSpec(
            num_frames=arguments.num_frames,
            height=arguments.size,
            width=arguments.size,
            frame_rate=_rate(arguments.frame_rate),
            sample_rate=arguments.sample_rate,
        ),
        num_heads=arguments.num_heads,
        cross_head_width=arguments.cross_head_width,
        cross_attention_windows=arguments.cross_attention_windows,
        low_res_size=arguments.low_res_size,
        size=arguments.large_size,
    )


def _rate(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise SoundreelError(f"--frame-rate: a number or a fraction, got {text!r}") from None
