"""Dense optical flow by polynomial expansion, the motion signal of the published AV-Align score.

Each neighbourhood of a picture is fitted by a quadratic polynomial; the shift between two fits,
averaged over a window, is the flow, refined over a pyramid of sizes. Settings are those the
published evaluators use. Source: Farneback 2003.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Float, UInt8

Image = Float[np.ndarray, "height width"]
Flow = Float[np.ndarray, "height width 2"]
Fit = Float[np.ndarray, "height width 5"]

PYRAMID_SCALE = 0.5
NUM_LEVELS = 3
MIN_SIZE = 32
WINDOW = 15
NUM_ITERATIONS = 3
REACH = 5
SIGMA = 1.2
BORDER = np.array([0.14, 0.14, 0.4472, 0.4472, 0.4472])


def mean_flow(frames: UInt8[np.ndarray, "frame height width 3"]) -> Float[np.ndarray, " frame"]:
    """Mean flow magnitude in pixels at every frame, from the frame before; the first repeats."""
    grey = np.rint(frames @ np.array([0.299, 0.587, 0.114])).astype(np.float64)
    values = [
        float(np.hypot(*np.moveaxis(optical_flow(first, second), -1, 0)).mean())
        for first, second in pairwise(grey)
    ]
    return np.array([values[0], *values])


def optical_flow(first: Image, second: Image) -> Flow:
    """Displacement (x, y) in pixels of every pixel of `first` on its way to `second`.

    Units: grey levels 0 to 255.
    """
    levels = 0
    while levels < NUM_LEVELS and min(first.shape) * PYRAMID_SCALE ** (levels + 1) >= MIN_SIZE:
        levels += 1
    flow = np.zeros((*first.shape, 2))
    for level in range(levels, -1, -1):
        scale = PYRAMID_SCALE**level
        size = (round(first.shape[0] * scale), round(first.shape[1] * scale))
        sigma = (1 / scale - 1) * 0.5
        small = [_resized(_blurred(image, sigma), size) for image in (first, second)]
        if level == levels:
            flow = np.zeros((*size, 2))
        else:
            old = flow
            flow = np.stack([_resized(old[..., k], size) for k in (0, 1)], axis=-1) / PYRAMID_SCALE
        fits = [_polynomial_fit(image) for image in small]
        for _ in range(NUM_ITERATIONS):
            flow = _updated(fits[0], fits[1], flow)
    return flow


def _polynomial_fit(image: Image) -> Fit:
    """Coefficients of x, y, x^2, y^2, xy of the weighted least-squares fit around each pixel."""
    offset = np.arange(-REACH, REACH + 1)
    weight = np.exp(-(offset**2) / (2 * SIGMA**2))
    weight /= weight.sum()
    second, fourth = (weight * offset**2).sum(), (weight * offset**4).sum()
    kernels = [weight * offset**power for power in (0, 1, 2)]
    rows = [_filtered(image, kernel, axis=0) for kernel in kernels]
    moments = {
        (px, py): _filtered(rows[py], kernels[px], axis=1)
        for px, py in ((0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1))
    }
    # Normal equations: 1, x^2 and y^2 are coupled, x, y and xy stand alone.
    coupled = np.array(
        [
            [1, second, second],
            [second, fourth, second**2],
            [second, second**2, fourth],
        ]
    )
    right = np.stack([moments[0, 0], moments[2, 0], moments[0, 2]], axis=-1)
    quadratic = right @ np.linalg.inv(coupled).T
    return np.stack(
        [
            moments[1, 0] / second,
            moments[0, 1] / second,
            quadratic[..., 1],
            quadratic[..., 2],
            moments[1, 1] / second**2,
        ],
        axis=-1,
    )


def _updated(first: Fit, second: Fit, flow: Flow) -> Flow:
    """One round: the shift between the fits, given the shift known so far."""
    height, width = first.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    moved = _sampled(second, x + flow[..., 0], y + flow[..., 1])
    inside = (
        (x + flow[..., 0] >= 0)
        & (x + flow[..., 0] <= width - 1)
        & (y + flow[..., 1] >= 0)
        & (y + flow[..., 1] <= height - 1)
    )[..., None]
    moved = np.where(inside, moved, first)
    mean = (first + moved) / 2
    axx, ayy, axy = mean[..., 2], mean[..., 3], mean[..., 4] / 2
    dx, dy = flow[..., 0], flow[..., 1]
    bx = np.where(inside[..., 0], (first[..., 0] - moved[..., 0]) / 2, 0) + axx * dx + axy * dy
    by = np.where(inside[..., 0], (first[..., 1] - moved[..., 1]) / 2, 0) + axy * dx + ayy * dy
    trust = (_edge_weight(height)[:, None] * _edge_weight(width)[None]) ** 2
    terms = [
        _window_mean(trust * term)
        for term in (
            axx**2 + axy**2,
            (axx + ayy) * axy,
            ayy**2 + axy**2,
            axx * bx + axy * by,
            axy * bx + ayy * by,
        )
    ]
    gxx, gxy, gyy, hx, hy = terms
    determinant = gxx * gyy - gxy**2 + 1e-3
    return np.stack(
        [(gyy * hx - gxy * hy) / determinant, (gxx * hy - gxy * hx) / determinant], axis=-1
    )


def _edge_weight(size: int) -> Float[np.ndarray, " position"]:
    weight = np.ones(size)
    count = min(len(BORDER), size)
    weight[:count] *= BORDER[:count]
    weight[size - count :] *= BORDER[:count][::-1]
    return weight


def _window_mean(image: Image) -> Image:
    kernel = np.full(WINDOW, 1 / WINDOW)
    return _filtered(_filtered(image, kernel, axis=0), kernel, axis=1)


def _blurred(image: Image, sigma: float) -> Image:
    reach = max(round(sigma * 5) | 1, 3) // 2
    if sigma == 0:
        return image
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    return _filtered(_filtered(image, kernel, axis=0), kernel, axis=1)


def _filtered(image: Image, kernel: Float[np.ndarray, " tap"], axis: int) -> Image:
    """Correlation along one axis, the edge pixels repeated outside."""
    reach = len(kernel) // 2
    padding = [(reach, reach) if k == axis else (0, 0) for k in (0, 1)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(image, padding, mode="edge"), len(kernel), axis=axis
    )
    return windows @ kernel


def _resized(image: Image, size: tuple[int, int]) -> Float[np.ndarray, "_height _width"]:
    """Bilinear, pixel centres on pixel centres."""
    if image.shape == size:
        return image
    y, x = (
        (np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, image.shape, strict=True)
    )
    grid = np.meshgrid(x.clip(0, image.shape[1] - 1), y.clip(0, image.shape[0] - 1))
    return _sampled(image[..., None], grid[0], grid[1])[..., 0]


def _sampled(
    values: Float[np.ndarray, "height width channel"],
    x: Float[np.ndarray, "rows columns"],
    y: Float[np.ndarray, "rows columns"],
) -> Float[np.ndarray, "rows columns channel"]:
    """Bilinear samples at (x, y), clamped to the edges."""
    height, width = values.shape[:2]
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[..., None], (y - top)[..., None]
    upper = values[top, left] * (1 - u) + values[top, right] * u
    lower = values[bottom, left] * (1 - u) + values[bottom, right] * u
    return upper * (1 - v) + lower * v
