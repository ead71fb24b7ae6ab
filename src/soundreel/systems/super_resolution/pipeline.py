"""Enlarge the frames of a clip with a super-resolution model.

All frames of a clip start from one noise image: that keeps the invented detail still from frame to
frame. Frames go through the network a few at a time, so memory does not grow with the clip.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from soundreel.checkpoints.errors import CheckpointError
from soundreel.checkpoints.store import load_component, load_model_index
from soundreel.clip import Clip
from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.errors import SoundreelError
from soundreel.media.pixels import frames_to_video, video_to_frames
from soundreel.systems.super_resolution.network import (
    SuperResolutionConfig,
    SuperResolutionUNet,
    from_residual,
    super_resolution_denoiser,
)
from soundreel.types import AV

COMPONENT = "super_resolution"
"""Name of the network's folder within a model folder."""

_NUM_TRAIN_TIMESTEPS = 1000

Progress = Callable[[int, int], None]
"""`progress(done, total)` after each step of each batch of frames. Raise in it to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleConfig:
    """How to enlarge.

    Args:
        num_steps: DDIM steps, evenly strided over the chain; 25 is MM-Diffusion's setting.
        batch_frames: frames that go through the network at once.
        clamp_low_res: limit a generated clip's frames to [-1, 1] before they are enlarged. The
            published scripts do not.
        precision: "bfloat16" runs the network under automatic mixed precision.
    """

    num_steps: int = 25
    batch_frames: int = 4
    clamp_low_res: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_frames"):
            if getattr(self, name) <= 0:
                raise SoundreelError(f"{name} must be positive, got {getattr(self, name)}")
        stride = math.ceil(_NUM_TRAIN_TIMESTEPS / self.num_steps)
        if self.num_steps == 1 or len(range(0, _NUM_TRAIN_TIMESTEPS, stride)) != self.num_steps:
            raise SoundreelError(
                f"no stride cuts the chain of {_NUM_TRAIN_TIMESTEPS} steps to {self.num_steps}; "
                "use a number from 2 to 32, or 50, 100, 200"
            )


class SuperResolutionPipeline:
    """A super-resolution network with its noise process, the linear one of 1000 steps.

    Args:
        network: moved and set to evaluation mode by the caller.
    """

    def __init__(self, network: SuperResolutionUNet) -> None:
        self.network = network
        self.schedule = linear_schedule(_NUM_TRAIN_TIMESTEPS)

    @classmethod
    def load(cls, folder: Path) -> "SuperResolutionPipeline":
        """The super-resolution part of a model folder.

        Raises:
            CheckpointError: the folder has no such part, or is damaged.
        """
        components = load_model_index(folder).components
        if COMPONENT not in components:
            raise CheckpointError(
                f"{folder}: holds no super-resolution model, only {', '.join(components)}"
            )
        network, _ = load_component(folder, COMPONENT, SuperResolutionUNet, SuperResolutionConfig)
        return cls(network)

    @property
    def scale(self) -> int:
        """How many times larger each side becomes."""
        return self.network.config.scale

    def upscale_clip(
        self,
        clip: Clip,
        *,
        seed: int = 0,
        config: UpscaleConfig | None = None,
        progress: Progress | None = None,
    ) -> Clip:
        """The clip with larger frames and the same sound.

        Args:
            seed: of the noise image that all frames share.

        Raises:
            SoundreelError: the clip has no frames.
        """
        if clip.frames is None:
            raise SoundreelError("a clip without frames cannot be enlarged; give one with video")
        low_res = frames_to_video(clip.frames)
        batches = self._batches(low_res, seed, config or UpscaleConfig(), progress)
        frames = np.concatenate([video_to_frames(video) for video in batches])
        return replace(clip, frames=frames)

    def upscale_video(
        self,
        low_res: Float[Tensor, "frame 3 height width"],
        *,
        seed: int = 0,
        config: UpscaleConfig | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "frame 3 large_height large_width"]:
        """Frames of one clip, `scale` times as high and as wide, in [-1, 1].

        Args:
            low_res: the small frames; a base model's output may go in as it is, values beyond
                [-1, 1] included.
            seed: of the noise image that all frames share.
        """
        return torch.cat(list(self._batches(low_res, seed, config or UpscaleConfig(), progress)))

    def _batches(
        self, low_res: Tensor, seed: int, config: UpscaleConfig, progress: Progress | None
    ) -> Iterator[Tensor]:
        height, width = low_res.shape[2:]
        if config.clamp_low_res:
            low_res = low_res.clamp(-1, 1)
        low_res = self._padded(low_res)
        noise_shape = (1, 3, low_res.shape[2] * self.scale, low_res.shape[3] * self.scale)
        noise = torch.randn(noise_shape, generator=torch.Generator().manual_seed(seed))
        schedule = respace(self.schedule, f"ddim{config.num_steps}")
        device = next(self.network.parameters()).device
        parts = low_res.split(config.batch_frames)
        total = len(parts) * config.num_steps
        scale = self.network.config.residual_scale
        for index, part in enumerate(parts):

            def advance(step: int, _num_steps: int | None, _xt: AV, index: int = index) -> None:
                if progress is not None:
                    progress(index * config.num_steps + step, total)

            denoiser = super_resolution_denoiser(
                self.network,
                part.to(device),
                learned_variance=self.network.config.learned_variance,
            )
            xt = noise.to(device).repeat(len(part), 1, 1, 1)
            with torch.autocast(
                device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
            ):
                x0 = ddim(
                    denoiser,
                    AV(xt, None),
                    schedule,
                    prediction_type=self.network.config.prediction_type,
                    clip_x0=not scale,
                    callback=advance,
                )
            large = from_residual(x0["video"].float(), part.to(device), scale)
            yield large[:, :, : height * self.scale, : width * self.scale].cpu()

    def _padded(self, low_res: Tensor) -> Tensor:
        """Repeat the last row and column until the network's deepest level has whole pixels."""
        deepest = 2 ** (len(self.network.config.channel_mult) - 1)
        bottom, right = (
            next(n for n in range(deepest) if (size + n) * self.scale % deepest == 0)
            for size in low_res.shape[2:]
        )
        if not bottom and not right:
            return low_res
        return functional.pad(low_res, (0, right, 0, bottom), mode="replicate")
