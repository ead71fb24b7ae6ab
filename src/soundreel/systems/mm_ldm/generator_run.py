"""Training of MM-LDM's third stage: the joint generator, and its phase for long video."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.generator_config import GeneratorSizes
from soundreel.systems.mm_ldm.generator_loss import GeneratorObjective
from soundreel.training.loop import TrainConfig


@dataclass(frozen=True, kw_only=True)
class GeneratorRun:
    """Stage 3, on latents that are computed once and standardised.

    Attributes:
        num_axes: 0 standardises per channel, as published; otherwise latents are reduced to so many
            principal axes.
        whitening: how far the spread along the axes is made equal: 0 leaves it, 1 makes it one.
        movement_axes: 0: the axes are of a whole clip's z_v; otherwise they are of the mean over
            the frames, and what changes has so many axes of its own, the same for every frame, so
            that nothing is lost in time. Needs `num_axes`, a video encoder with `stacked_frames`
            and all their coefficients in z_v.
    """

    old_keys: ClassVar[Mapping[str, str | None]] = {"evening": "whitening"}
    removed: ClassVar[Mapping[str, Any]] = {"motion_energy": 0.0, "activity": 0.0}

    model: GeneratorSizes = field(default_factory=GeneratorSizes)
    num_axes: int = 0
    whitening: float = 0.5
    movement_axes: int = 0
    loss: GeneratorObjective = field(default_factory=GeneratorObjective)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.num_axes < 0:
            raise SoundreelError(f"num_axes is 0 or more, got {self.num_axes}")
        if not 0 <= self.whitening <= 1:
            raise SoundreelError(f"whitening lies within [0, 1], got {self.whitening}")
        if self.movement_axes < 0:
            raise SoundreelError(f"movement_axes is 0 or more, got {self.movement_axes}")
        if self.movement_axes and not self.num_axes:
            raise SoundreelError("movement_axes stand beside those of the rest: set num_axes too")


@dataclass(frozen=True, kw_only=True)
class LongRun:
    """Stage 3's second phase, for long video: the trained generator learns to go on from a clip.

    `generator.loss` is its loss too.

    Attributes:
        enabled: False leaves the phase out.
        history_depth: blocks of the condition encoder, at most those of the generator.
        overlap: frames that neighbouring windows of a film share, so that their border can be
            faded; 0 as published. `data.stride` divides what is left of a window.
    """

    enabled: bool = False
    history_depth: int = 14
    overlap: int = 0
    train: TrainConfig = field(default_factory=TrainConfig)
