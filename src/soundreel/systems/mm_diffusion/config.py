"""Configuration of a training run of the Coupled U-Net."""

from dataclasses import dataclass, field
from typing import Literal

from soundreel.config import DataConfig, PreviewConfig
from soundreel.diffusion.config import DiffusionConfig
from soundreel.errors import SoundreelError
from soundreel.systems.mm_diffusion.coupled_unet import CoupledUNetConfig
from soundreel.training.loop import TrainConfig
from soundreel.types import ClipSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class MMDiffusionConfig:
    """A training run of the Coupled U-Net."""

    system: Literal["mm-diffusion"] = "mm-diffusion"
    clip: ClipSpec = field(default_factory=ClipSpec)
    unet: CoupledUNetConfig = field(default_factory=CoupledUNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    preview: PreviewConfig = field(default_factory=PreviewConfig)

    def __post_init__(self) -> None:
        if self.unet.num_frames != self.clip.num_frames:
            raise SoundreelError(
                f"unet.num_frames {self.unet.num_frames} must equal clip.num_frames"
                f" {self.clip.num_frames}"
            )
        if self.unet.audio_channels != self.clip.num_channels:
            raise SoundreelError(
                f"unet.audio_channels {self.unet.audio_channels} must equal clip.num_channels"
                f" {self.clip.num_channels}"
            )
        if self.train.compile:  # and new shifts are new code, step after step
            raise SoundreelError(
                "train.compile: the Coupled U-Net, whose windows are shifted anew at every step, is"
                " not compiled; set it to False"
            )
