"""JPEG compression of single images, in memory."""

import io

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor


def jpeg_round_trip(
    levels: Float[Tensor, "channel height width"], quality: int
) -> Float[Tensor, "channel height width"]:
    """Return an RGB image, rounded and clipped to 0..255, after JPEG compression at `quality`."""
    pixels = levels.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="JPEG", quality=quality)
    with Image.open(buffer) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).to(levels.dtype)
