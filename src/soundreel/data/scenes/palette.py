"""Colours of the rendered scenes."""

import colorsys

import numpy as np

from soundreel.data.scenes.canvas import Colour, Number


def hsv(hue: Number, saturation: Number, value: Number) -> Colour:
    """Return a colour from hue, saturation and value, each in 0 to 1."""
    return colorsys.hsv_to_rgb(float(hue % 1.0), float(saturation), float(value))


def mix(first: Colour, second: Colour, share: Number) -> Colour:
    """Return `first` at share 0, `second` at 1."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


def scaled(colour: Colour, factor: Number) -> Colour:
    red, green, blue = (c * factor for c in colour)
    return red, green, blue


def room_colours(rng: np.random.Generator) -> tuple[Colour, Colour, Colour]:
    """Return wall, wall near the floor, and floor of one harmonious room."""
    hue = rng.uniform()
    wall = hsv(hue, rng.uniform(0.18, 0.42), rng.uniform(0.62, 0.92))
    low = scaled(wall, rng.uniform(0.74, 0.88))
    floor = hsv(hue + rng.uniform(0.35, 0.65), rng.uniform(0.2, 0.4), rng.uniform(0.38, 0.6))
    return wall, low, floor
