"""Drawing with antialiased edges into one picture, in numpy.

Coordinates are in picture heights, so that a scene looks alike at every size: x to the right from
the middle, y down from the top. Shapes are covered by their signed distance over one pixel.
Colours are (red, green, blue) with 1 as white; light may be added beyond 1 and is clipped at the
end.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # float32 or float64
Number = float | int | np.floating
Colour = tuple[Number, Number, Number]

MIN_PARTICLE_PX = 0.55


class Canvas:
    """A picture of `height` by `width` pixels, started from a background picture or black."""

    def __init__(
        self,
        height: int,
        width: int,
        background: Array | None = None,
        shift: tuple[Number, Number] = (0.0, 0.0),
    ) -> None:
        self.height, self.width = height, width
        self.pixel = 1.0 / height
        self.xs = ((np.arange(width) + 0.5 - width / 2) / height + shift[0]).astype(np.float32)
        self.ys = ((np.arange(height) + 0.5) / height + shift[1]).astype(np.float32)
        if background is None:
            background = np.zeros((height, width, 3), np.float32)
        self.pixels = background.copy()

    @property
    def half_width(self) -> float:
        """Return x of the right edge."""
        return self.width / self.height / 2

    def to_uint8(self) -> npt.NDArray[np.uint8]:
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)

    def gradient(self, *stops: tuple[Number, Colour]) -> None:
        """Fill with a vertical gradient through (y, colour) stops."""
        positions = [float(y) for y, _ in stops]
        for channel in range(3):
            values = [float(colour[channel]) for _, colour in stops]
            self.pixels[:, :, channel] = np.interp(self.ys, positions, values)[:, None]

    def below(self, edge: Callable[[Array], Array], top: Colour, bottom: Colour) -> None:
        """Fill everything under the curve y = edge(x), shaded from the curve down to y = 1."""
        curve = edge(self.xs).astype(np.float32)[None]
        depth = self.ys[:, None] - curve
        cover = np.clip(depth / self.pixel + 0.5, 0, 1)
        share = np.clip(depth / np.maximum(1 - curve, 1e-3), 0, 1)[..., None]
        colour = rgb(top) * (1 - share) + rgb(bottom) * share
        self.pixels += (colour - self.pixels) * cover[..., None]

    def disc(
        self, x: Number, y: Number, radius: Number, colour: Colour, alpha: Number = 1.0
    ) -> None:
        """Draw a flat disc."""
        view = self._view(x, y, radius, radius)
        if view is not None:
            rows, columns, dx, dy = view
            self._cover(rows, columns, np.hypot(dx, dy) - radius, colour, alpha)

    def sphere(
        self, x: Number, y: Number, radius: Number, colour: Colour, squash: Number = 1.0
    ) -> None:
        """Draw a ball lit from the upper left; `squash` < 1 makes it flatter and wider."""
        half_x, half_y = radius / squash**0.5, radius * squash
        view = self._view(x, y, half_x, half_y)
        if view is None:
            return
        rows, columns, dx, dy = view
        u, v = dx / half_x, dy / half_y
        square = u * u + v * v
        depth = np.sqrt(np.maximum(1 - square, 0))
        light = np.clip(-0.5 * u - 0.62 * v + 0.6 * depth, 0, 1)
        shade = (0.38 + 0.72 * light)[..., None] * rgb(colour) + 0.55 * light[..., None] ** 14
        distance = (np.sqrt(square) - 1) * min(half_x, half_y)
        self._cover(rows, columns, distance, shade, 1.0)

    def ellipse(
        self,
        x: Number,
        y: Number,
        half_x: Number,
        half_y: Number,
        colour: Colour,
        alpha: Number = 1.0,
        softness: Number = 0.0,
    ) -> None:
        """Draw a flat ellipse, its edge blurred over `softness`."""
        view = self._view(x, y, half_x + softness, half_y + softness)
        if view is not None:
            rows, columns, dx, dy = view
            distance = _ellipse_distance(dx, dy, half_x, half_y)
            self._cover(rows, columns, distance, colour, alpha, softness)

    def ring(
        self,
        x: Number,
        y: Number,
        half_x: Number,
        half_y: Number,
        half_thickness: Number,
        colour: Colour,
        alpha: Number = 1.0,
    ) -> None:
        """Draw the outline of an ellipse; thinner than a pixel it fades instead of vanishing."""
        view = self._view(x, y, half_x + half_thickness, half_y + half_thickness)
        if view is None or half_x <= 0 or half_y <= 0:
            return
        rows, columns, dx, dy = view
        thick = max(half_thickness, self.pixel / 2)
        distance = np.abs(_ellipse_distance(dx, dy, half_x, half_y)) - thick
        self._cover(rows, columns, distance, colour, alpha * min(1.0, half_thickness / thick + 0.3))

    def segment(
        self,
        start: tuple[Number, Number],
        end: tuple[Number, Number],
        half_width: Number,
        colour: Colour,
        alpha: Number = 1.0,
    ) -> None:
        """Draw a line with round ends."""
        (x0, y0), (x1, y1) = start, end
        thick = max(half_width, self.pixel / 2)
        view = self._view(
            (x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2 + thick, abs(y1 - y0) / 2 + thick
        )
        if view is None:
            return
        rows, columns, dx, dy = view
        ax, ay = (x1 - x0) / 2, (y1 - y0) / 2
        along = np.clip((dx * ax + dy * ay) / max(ax * ax + ay * ay, 1e-9), -1, 1)
        distance = np.hypot(dx - along * ax, dy - along * ay) - thick
        self._cover(rows, columns, distance, colour, alpha * min(1.0, half_width / thick))

    def box(
        self,
        x: Number,
        y: Number,
        half_x: Number,
        half_y: Number,
        colour: Colour,
        angle: Number = 0.0,
        rounding: Number = 0.0,
    ) -> None:
        """Draw a rectangle turned clockwise by `angle` radians, its corners rounded."""
        reach = float(np.hypot(half_x, half_y)) if angle else 0.0
        view = self._view(x, y, reach or half_x, reach or half_y)
        if view is None:
            return
        rows, columns, dx, dy = view
        u, v = _turn(dx, dy, angle)
        du, dv = np.abs(u) - half_x + rounding, np.abs(v) - half_y + rounding
        outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
        distance = outside + np.minimum(np.maximum(du, dv), 0) - rounding
        self._cover(rows, columns, distance, colour, 1.0)

    def solid(
        self,
        x: Number,
        y: Number,
        length: Number,
        half_width: Callable[[Array], Array],
        colour: Colour,
        angle: Number = 0.0,
    ) -> None:
        """Draw a turned shape hanging from (x, y), round like a vase, lit from the left.

        `half_width` gives the half width at 0 (top) to 1 (bottom), in units of `length`.
        """
        reach = 1.3 * length
        view = self._view(x, y, reach, reach)
        if view is None:
            return
        rows, columns, dx, dy = view
        u, v = _turn(dx, dy, angle)
        share = np.clip(v / length, 0, 1)
        half = half_width(share) * length
        distance = np.maximum(np.abs(u) - half, np.maximum(-v, v - length))
        side = np.clip(u / np.maximum(half, 1e-4), -1, 1)
        light = (
            0.45 + 0.55 * np.cos(1.35 * side + 0.55) + 0.5 * np.exp(-(((side + 0.45) / 0.16) ** 2))
        )
        self._cover(rows, columns, distance, light[..., None] * rgb(colour), 1.0)

    def glow(
        self, x: Number, y: Number, radius: Number, colour: Colour, strength: Number = 1.0
    ) -> None:
        """Add soft light around a point."""
        view = self._view(x, y, 2.6 * radius, 2.6 * radius)
        if view is not None:
            rows, columns, dx, dy = view
            light = np.exp(-(dx * dx + dy * dy) / (radius * radius)) - 0.00116
            self.pixels[rows, columns] += strength * np.maximum(light, 0)[..., None] * rgb(colour)

    def particles(
        self,
        x: Array,
        y: Array,
        radius: Number,
        colour: Array | Colour,
        strength: Array | Number = 1.0,
    ) -> None:
        """Add many small round lights at once; below the pixel size they get weaker instead."""
        size = max(radius / self.pixel, MIN_PARTICLE_PX)
        weight = np.broadcast_to(strength, np.shape(x)) * min(1.0, radius / self.pixel / size) ** 2
        scale = 1 / (size * self.pixel)
        # A round Gaussian is a product of two: the sum over particles is a matrix product.
        columns = np.exp(-(((self.xs[None] - np.asarray(x)[:, None]) * scale) ** 2))
        rows = np.exp(-(((self.ys[None] - np.asarray(y)[:, None]) * scale) ** 2))
        tint = np.broadcast_to(np.asarray(colour, np.float32), (len(weight), 3))
        for channel in range(3):
            light = weight * tint[:, channel]
            self.pixels[:, :, channel] += (rows * light[:, None]).astype(np.float32).T @ (
                columns.astype(np.float32)
            )

    def _view(
        self, x: Number, y: Number, half_x: Number, half_y: Number
    ) -> tuple[slice, slice, Array, Array] | None:
        """Return rows, columns and offsets from (x, y) of pixels within the reach; None if none."""
        edge = 1.5 * self.pixel
        left, right = np.searchsorted(self.xs, np.array([x - half_x - edge, x + half_x + edge]))
        top, bottom = np.searchsorted(self.ys, np.array([y - half_y - edge, y + half_y + edge]))
        if left >= right or top >= bottom:
            return None
        rows, columns = slice(int(top), int(bottom)), slice(int(left), int(right))
        return rows, columns, self.xs[None, columns] - x, self.ys[rows, None] - y

    def _cover(
        self,
        rows: slice,
        columns: slice,
        distance: Array,
        colour: Colour | Array,
        alpha: Number,
        softness: Number = 0.0,
    ) -> None:
        blur = max(self.pixel, softness)
        cover = np.clip(0.5 - distance / blur, 0, 1) * alpha
        region = self.pixels[rows, columns]
        region += (np.asarray(colour, np.float32) - region) * cover[..., None]


def rgb(colour: Colour) -> Array:
    return np.asarray(colour, np.float32)


def _turn(dx: Array, dy: Array, angle: Number) -> tuple[Array, Array]:
    """Return offsets in the axes of a shape turned clockwise by `angle`."""
    if angle == 0:
        return dx, dy
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return dx * cosine + dy * sine, dy * cosine - dx * sine


def _ellipse_distance(dx: Array, dy: Array, half_x: Number, half_y: Number) -> Array:
    """Return first-order distance to an ellipse's outline."""
    length = np.hypot(dx / half_x, dy / half_y)
    slope = np.hypot(dx / half_x**2, dy / half_y**2)
    return np.where(
        slope > 1e-6, length * (length - 1) / np.maximum(slope, 1e-6), -min(half_x, half_y)
    )
