"""Pictures within a page: as addresses that hold the data themselves."""

import base64
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def image_uri(image: Image.Image, kind: str = "PNG") -> str:
    """Return an image as a `data:` address; `kind` is PNG or JPEG."""
    buffer = BytesIO()
    image.save(buffer, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def frame_uri(frame: UInt8[np.ndarray, "height width 3"]) -> str:
    """Return one RGB frame as the `data:` address of a JPEG."""
    return image_uri(Image.fromarray(frame), "JPEG")
