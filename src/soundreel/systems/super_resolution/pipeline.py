"""Enlarge the frames of a clip with a super-resolution model.

All frames of a clip start from one noise image: that keeps the invented detail still from frame to
frame. Frames go through the network a few at a time, so memory does not grow with the clip.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from soundreel.checkpoints.store import ModelFolder
from soundreel.clip import Clip
from soundreel.device import PRECISIONS, autocast
from soundreel.diffusion.ddim import ddim
from soundreel.diffusion.schedules import linear_schedule, respace
from soundreel.errors import SoundreelError
from soundreel.media.pixels import frames_to_video, video_to_frames
from soundreel.protocols import Progress, option, with_options
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


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleConfig:
    """Options of `SuperResolutionPipeline.upscale_clip` besides clip and seed.

    The DDIM steps are evenly strided over the chain; 25 of them are MM-Diffusion's setting. The
    published scripts do not clamp.
    """

    num_steps: int = option(
        25, "Sampling steps per frame; few are faster and smoother.", low=1, high=32
    )
    batch_frames: int = option(
        4, "Frames enlarged at once; more needs more memory.", low=1, on_page=False
    )
    clamp_low_res: bool = option(
        False,
        "Limit the small frames to the range of a picture before they are enlarged.",
        on_page=False,
    )
    precision: str = option(
        "auto",
        "Precision of the network; auto measures which one is faster.",
        choices=PRECISIONS,
        on_page=False,
    )

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
    def load(cls, model: ModelFolder) -> "SuperResolutionPipeline":
        """Build the pipeline of a model folder's super-resolution part, on the CPU.

        Raises:
            CheckpointError: the folder has no such part, or is damaged.
        """
        part = model.component(COMPONENT)
        network, _ = part.build(SuperResolutionUNet, SuperResolutionConfig)
        return cls(network)

    @property
    def options(self) -> UpscaleConfig:
        """Return the sampling defaults."""
        return UpscaleConfig()

    @property
    def small_size(self) -> int:
        """Return pixels along each side of the pictures that it was trained to enlarge."""
        return self.network.config.low_res_size

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: torch.device | str) -> "SuperResolutionPipeline":
        """Move the network; returns the pipeline itself."""
        self.network.to(device)
        return self

    @property
    def scale(self) -> int:
        """Return how many times larger each side becomes."""
        return self.network.config.scale

    def upscale_clip(
        self,
        clip: Clip,
        *,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> Clip:
        """Return the clip with larger frames and the same sound.

        Args:
            seed: of the noise image that all frames share.
            options: fields of `UpscaleConfig`; those left out or None are its defaults.

        Raises:
            SoundreelError: the clip has no frames, or an option is unknown or out of range.
        """
        if clip.frames is None:
            raise SoundreelError("a clip without frames cannot be enlarged; give one with video")
        low_res = frames_to_video(clip.frames)
        frames = self.upscale_frames(low_res, seed=seed, progress=progress, **options)
        return Clip(frames, clip.waveform, clip.frame_rate, clip.sample_rate)

    def upscale_frames(
        self,
        low_res: Float[Tensor, "frame 3 height width"],
        *,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> UInt8[np.ndarray, "frame large_height large_width 3"]:
        """Return larger frames of one clip from floats as a base model makes them.

        Args: as for `upscale_clip` and `upscale_video`.
        """
        config = with_options(self.options, options)
        batches = self._batches(low_res, seed, config, progress)
        return np.concatenate([video_to_frames(video) for video in batches])

    def upscale_video(
        self,
        low_res: Float[Tensor, "frame 3 height width"],
        *,
        seed: int = 0,
        config: UpscaleConfig | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "frame 3 large_height large_width"]:
        """Return frames of one clip, `scale` times as high and as wide, in [-1, 1].

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
        device = self.device
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
            with autocast(device, config.precision):
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
