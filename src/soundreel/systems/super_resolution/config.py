"""Configuration of a training run of the super-resolution stage."""

from dataclasses import dataclass, field
from typing import Literal

from soundreel.config import DataConfig, PreviewConfig
from soundreel.errors import SoundreelError
from soundreel.systems.super_resolution.degradation import DegradationConfig
from soundreel.systems.super_resolution.network import SuperResolutionConfig
from soundreel.training.loop import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SuperResolutionRunConfig:
    """A training run of the super-resolution network; its samples are single frames.

    Attributes:
        data: `stride` counts frames: 1 learns from every frame of the data set, whose pictures must
            be `network.size` pixels high and wide.
    """

    system: Literal["mm-diffusion-sr"] = "mm-diffusion-sr"
    network: SuperResolutionConfig = field(default_factory=SuperResolutionConfig)
    degradation: DegradationConfig = field(default_factory=DegradationConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)

    def __post_init__(self) -> None:
        if self.network.low_res_size != self.degradation.low_res_size:
            raise SoundreelError(
                f"network.low_res_size {self.network.low_res_size} must equal "
                f"degradation.low_res_size {self.degradation.low_res_size}"
            )
