"""MM-Diffusion as a system: what the registry, the command line and the page know of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from soundreel.checkpoints.store import ModelFolder
from soundreel.errors import SoundreelError
from soundreel.protocols import Importer, System, option
from soundreel.systems.mm_diffusion import presets
from soundreel.systems.mm_diffusion.config import MMDiffusionConfig
from soundreel.systems.mm_diffusion.export_official import export_mm_diffusion
from soundreel.systems.mm_diffusion.import_official import ImportOptions, import_mm_diffusion
from soundreel.systems.mm_diffusion.options import MMDiffusionOptions
from soundreel.systems.mm_diffusion.pipeline import KIND, MMDiffusionPipeline
from soundreel.systems.mm_diffusion.pipeline import (
    SYSTEM as NAME,
)
from soundreel.systems.mm_diffusion.training import stages_of, train_mm_diffusion
from soundreel.types import ClipSpec


@dataclass(frozen=True, kw_only=True)
class ImportFlags:
    """Settings that the shapes do not tell; the defaults are those of the published files."""

    num_frames: int = option(16, "Frames of the base model's clips.")
    size: int = option(64, "Pixels along each side of the base model's frames.")
    frame_rate: str = option("10", "Frames per second of its clips: a number or a fraction.")
    sample_rate: int = option(16_000, "Samples per second of its sound.")
    num_heads: int = option(4, "Self-attention heads of both networks.")
    cross_head_width: int = option(
        64, "Channels per head in cross-modal attention; 0 uses num_heads heads."
    )
    cross_attention_windows: tuple[int, ...] = option(
        (), "Frames per attention window, level by level; only where they are not 1, 4, 8."
    )
    low_res_size: int = option(
        64, "Pixels along each side of the super-resolution network's small images."
    )
    large_size: int = option(256, "Pixels along each side of its large images.")


def _import(files: Sequence[Path], target: Path, flags: ImportFlags) -> list[str]:
    try:
        frame_rate = Fraction(flags.frame_rate)
    except (ValueError, ZeroDivisionError):
        raise SoundreelError(
            f"--frame-rate: a number or a fraction, got {flags.frame_rate!r}"
        ) from None
    options = ImportOptions(
        clip=ClipSpec(
            num_frames=flags.num_frames,
            height=flags.size,
            width=flags.size,
            frame_rate=frame_rate,
            sample_rate=flags.sample_rate,
        ),
        num_heads=flags.num_heads,
        cross_head_width=flags.cross_head_width,
        cross_attention_windows=flags.cross_attention_windows,
        low_res_size=flags.low_res_size,
        size=flags.large_size,
    )
    lines = []
    for component in import_mm_diffusion(files, target, options):
        left_out = f"; left out {', '.join(component.ignored)}" if component.ignored else ""
        lines.append(
            f"{component.path} -> {target / component.name}: {component.num_tensors} tensors, "
            f"{component.num_parameters:,} parameters{left_out}"
        )
    return lines


def _load(model: ModelFolder, device: torch.device) -> MMDiffusionPipeline:
    return MMDiffusionPipeline.load(model).to(device)


SYSTEM = System(
    name=NAME,
    config_type=MMDiffusionConfig,
    presets={
        "mm-diffusion-landscape": presets.landscape,
        "mm-diffusion-aist": presets.aist,
        "mm-diffusion-audioset": presets.audioset,
        "mm-diffusion-small": presets.small,
        "mm-diffusion-tiny": presets.tiny,
    },
    stages=stages_of,
    train=train_mm_diffusion,
    load=_load,
    options=MMDiffusionOptions,
    components=frozenset((KIND,)),
    importers={
        "mm-diffusion": Importer(
            summary="MM-Diffusion's Landscape.pt, AIST++.pt and their *_SR.pt; guided diffusion's"
            " 64-to-256 upsampler",
            options=ImportFlags,
            read=_import,
        )
    },
    export=export_mm_diffusion,
)
