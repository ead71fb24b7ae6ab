"""Training the video decoder on the latents of the linear codec."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.device import send
from soundreel.diffusion.noise import PerSampleNoise
from soundreel.metrics.sync.signals import MOTION_FLOOR, NUM_BLOCKS
from soundreel.systems.joint_flow.lapped import HOP
from soundreel.systems.joint_flow.video_decoder import VideoDecoder
from soundreel.training.objectives import Objective, TrainingBatch, TrainingLoss
from soundreel.training.parallel import unwrapped


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoLossConfig:
    """Settings of the video decoder's loss.

    Attributes:
        latent_noise: deviation of the noise on the latents that the decoder learns from.
        motion: weight of the differences from frame to frame; the pixels' own is 1.
        edges: weight of the differences from pixel to pixel, down and across.
        borders: weight of those of them that lie across the borders of patches.
        squared: weight of the squared error.
        starts: weight of the error in the logarithm of how much each block changes from frame to
            frame, by which the eye and `metrics.sync` tell that something starts.
    """

    latent_noise: float = 0.05
    motion: float = 0.5
    edges: float = 0.25
    borders: float = 0.25
    squared: float = 1.0
    starts: float = 0.1


def video_decoder_objective(config: VideoLossConfig) -> Objective:
    """Return the loss of `VideoDecoder` on the frames of a batch that lie under two windows."""

    def objective(network: nn.Module, batch: TrainingBatch, noise: PerSampleNoise) -> TrainingLoss:
        decoder, frames = cast(VideoDecoder, unwrapped(network)), batch.av["video"]
        with torch.no_grad(), torch.autocast(frames.device.type, enabled=False):
            latents = decoder.linear.encode(frames)
            rows = [torch.randn(latents.shape[1:], generator=g) for g in noise.generators]
            latents = latents + config.latent_noise * send(torch.stack(rows), latents.device)
        wanted = frames[:, HOP:-HOP]
        decoded = network(latents).float()
        loss = picture_loss(decoded, wanted, config, decoder.linear.config.patch_size)
        square = (decoded - wanted).detach().square().flatten(1).mean(1)
        psnr_db = (10 * torch.log10(4 / square.clamp(min=1e-10))).mean()
        count = len(frames)
        return TrainingLoss(loss, {"error": (loss.detach(), count), "psnr_db": (psnr_db, count)})

    return objective


def picture_loss(
    decoded: Float[Tensor, "batch frame channel height width"],
    frames: Float[Tensor, "batch frame channel height width"],
    config: VideoLossConfig,
    patch_size: int,
) -> Float[Tensor, ""]:
    """Return the absolute error of pixels and of their differences, the squared one, and starts."""
    error = decoded - frames
    loss = error.abs().mean() + config.squared * error.square().mean()
    loss = loss + config.motion * error.diff(dim=1).abs().mean()
    across, down = error.diff(dim=-1).abs(), error.diff(dim=-2).abs()
    loss = loss + config.edges * (across.mean() + down.mean())
    first = patch_size - 1
    borders = across[..., first::patch_size].mean() + down[..., first::patch_size, :].mean()
    starts = (log_changes(decoded) - log_changes(frames)).abs().mean()
    return loss + config.borders * borders + config.starts * starts


def log_changes(
    frames: Float[Tensor, "batch frame 3 height width"],
) -> Float[Tensor, "batch interval row column"]:
    """Return the logarithm of the mean change of blocks' brightness from frame to frame.

    Frames are in [-1, 1]; blocks and floor are those of `metrics.sync.signals`, except that a
    picture with fewer than 8 pixels a side has as many blocks.
    """
    weights = torch.tensor([0.299, 0.587, 0.114]).to(frames)
    light = torch.einsum("c,bfchw->bfhw", weights / 2, frames)
    rows, columns = (min(NUM_BLOCKS, size) for size in frames.shape[-2:])
    change = light.diff(dim=1).abs()
    return (functional.adaptive_avg_pool2d(change, (rows, columns)) + MOTION_FLOOR).log()
