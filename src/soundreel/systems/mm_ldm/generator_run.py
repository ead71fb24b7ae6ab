"""How MM-LDM's third stage is trained: the joint generator, and its phase for long video."""

from dataclasses import dataclass, field

from soundreel.errors import SoundreelError
from soundreel.systems.mm_ldm.generator_config import GeneratorConfig
from soundreel.systems.mm_ldm.generator_loss import GeneratorObjective
from soundreel.training.loop import TrainConfig


@dataclass(frozen=True, kw_only=True)
class GeneratorRun:
    """Stage 3, on latents that are computed once and standardised.

    Attributes:
        num_axes: 0 standardises per channel, as published; otherwise latents are reduced to so many
            principal axes, and the spread along them is evened out.
        evening: how far: 0 leaves the spread, 1 makes it equal along all axes.
        movement_axes: 0: the axes are of a whole clip's z_v; otherwise they are of the mean over
            the frames, and what changes has so many axes of its own, the same for every frame, so
            that nothing is lost in time. Needs `num_axes`, a video encoder with `stacked_frames`
            and all their coefficients in z_v.
        activity: of a further axis that holds how much each frame changes, as a multiple of the
            movement axes' spread; 0: none. Needs `movement_axes`.
    """

    model: GeneratorConfig = field(default_factory=GeneratorConfig)
    num_axes: int = 0
    evening: float = 0.5
    movement_axes: int = 0
    activity: float = 0.0
    loss: GeneratorObjective = field(default_factory=GeneratorObjective)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.num_axes < 0:
            raise SoundreelError(f"num_axes is 0 or more, got {self.num_axes}")
        if not 0 <= self.evening <= 1:
            raise SoundreelError(f"evening lies within [0, 1], got {self.evening}")
        if self.movement_axes < 0:
            raise SoundreelError(f"movement_axes is 0 or more, got {self.movement_axes}")
        if self.movement_axes and not self.num_axes:
            raise SoundreelError("movement_axes stand beside those of the rest: set num_axes too")
        if self.activity < 0 or (self.activity and not self.movement_axes):
            raise SoundreelError(
                f"activity is 0, or a positive factor beside movement_axes, got {self.activity}"
            )


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
