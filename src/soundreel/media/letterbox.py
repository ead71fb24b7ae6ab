"""Fit frames of any size into a square as MM-LDM's release does, bit-equal to its resizing.

`Framing` does the same on the way out of a video file, with the decoder's faster scaler; this is
for frames that are decoded already.
"""

from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from soundreel.audio.resize import resize_uint8


def letterbox(
    frames: UInt8[Tensor, "*batch height width"], size: int
) -> UInt8[Tensor, "*batch {size} {size}"]:
    """Scale so that the longer side fits `size` (bicubic), and fill the rest with black.

    Sizes are truncated; where the black does not divide evenly, right and bottom get one more.
    """
    height, width = frames.shape[-2:]
    longer = max(height, width)
    fit_height = max(1, int(height * size / longer))
    fit_width = max(1, int(width * size / longer))
    top, left = (size - fit_height) // 2, (size - fit_width) // 2
    return functional.pad(
        resize_uint8(frames, fit_height, fit_width),
        (left, size - fit_width - left, top, size - fit_height - top),
    )
