"""Convert between the bytes and samples of clips and the floats of models."""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor


def frames_to_video(
    frames: UInt8[np.ndarray, "frame height width 3"] | Float32[np.ndarray, "frame height width 3"],
) -> Float[Tensor, "frame 3 height width"]:
    """Convert bytes 0..255, rounded or not, to float32 in [-1, 1]: x / 127.5 - 1."""
    video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    return video.to(torch.float32, copy=True).div_(127.5).sub_(1).contiguous()


def video_to_frames(
    video: Float[Tensor, "frame 3 height width"], *, truncate: bool = False
) -> UInt8[np.ndarray, "frame height width 3"]:
    """Convert floats in [-1, 1] to bytes: (x + 1) * 127.5, clamped to 0..255 and rounded.

    Args:
        truncate: drop the fraction instead of rounding, as MM-Diffusion's scripts do.
    """
    scaled = (video.detach().to("cpu", torch.float32) + 1).mul_(127.5).clamp_(0, 255)
    scaled = scaled if truncate else scaled.round_()
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def video_to_floats(
    video: Float[Tensor, "frame 3 height width"],
) -> Float32[np.ndarray, "frame height width 3"]:
    """Convert floats in [-1, 1] to the scale of bytes, (x + 1) * 127.5, and do not round."""
    scaled = (video.detach().to("cpu", torch.float32) + 1).mul_(127.5)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def rounded_to_bytes(
    frames: Float32[np.ndarray, "frame height width 3"],
) -> UInt8[np.ndarray, "frame height width 3"]:
    """Round floats on the scale of bytes, and limit them to it."""
    return np.rint(frames).clip(0, 255).astype(np.uint8)
