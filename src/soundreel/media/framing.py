"""Choose which part of a picture is kept, and how it fills frames of a wanted size."""

from dataclasses import dataclass
from typing import Literal

from soundreel.errors import SoundreelError

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Framing:
    """Tells how pictures of any size become frames of `height` x `width`.

    Attributes:
        kind: `"center"` cuts the largest centred part that has the wanted shape (a square for
            square frames) and scales it; `"letterbox"` scales the whole picture to fit and fills
            the rest with black; `"box"` cuts the given rectangle and scales it to the wanted size.
        height, width: size of the frames in pixels.
        box: left, top, width, height in pixels of the upright picture; only for `"box"`.
    """

    kind: Literal["center", "letterbox", "box"] = "center"
    height: int
    width: int
    box: Rectangle | None = None

    def __post_init__(self) -> None:
        if self.height <= 0 or self.width <= 0:
            raise SoundreelError(f"frame size must be positive, got {self.height} x {self.width}")
        if (self.kind == "box") != (self.box is not None):
            raise SoundreelError(
                f"a box is given exactly for kind 'box', got {self.kind!r}, {self.box}"
            )
        if self.box is not None and (min(self.box) < 0 or min(self.box[2:]) == 0):
            raise SoundreelError(
                f"box is left, top, width, height within the picture, got {self.box}"
            )

    @classmethod
    def center_square(cls, size: int) -> "Framing":
        """Keep the largest centred square, scaled to `size` x `size`."""
        return cls(kind="center", height=size, width=size)

    @classmethod
    def letterbox(cls, size: int) -> "Framing":
        """Keep the whole picture within `size` x `size`, black around it."""
        return cls(kind="letterbox", height=size, width=size)

    def crop(self, height: int, width: int) -> Rectangle:
        """Return left, top, width, height of the part kept of a picture.

        Raises:
            SoundreelError: if the given box does not lie within the picture.
        """
        if self.kind == "letterbox":
            return 0, 0, width, height
        if self.box is not None:
            left, top, box_width, box_height = self.box
            if left + box_width > width or top + box_height > height:
                raise SoundreelError(
                    f"box {self.box} leaves the picture of {width} x {height} pixels"
                )
            return self.box
        kept_width = max(1, min(width, round(height * self.width / self.height)))
        kept_height = max(1, min(height, round(width * self.height / self.width)))
        return (width - kept_width) // 2, (height - kept_height) // 2, kept_width, kept_height

    def scaled(self, height: int, width: int) -> Rectangle:
        """Return left, top, width, height of the scaled picture within the frame."""
        if self.kind != "letterbox":
            return 0, 0, self.width, self.height
        scale = min(self.height / height, self.width / width)
        fit_width = min(self.width, max(1, round(width * scale)))
        fit_height = min(self.height, max(1, round(height * scale)))
        return (self.width - fit_width) // 2, (self.height - fit_height) // 2, fit_width, fit_height
