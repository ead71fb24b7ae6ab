"""Linear video codec of two levels: a layout of the whole picture, and the detail of its patches.

Both levels are principal components of lapped coefficients, fitted in closed form. What is large in
space is coded once for the whole picture, so that neighbouring patches cannot disagree about it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from soundreel.errors import SoundreelError
from soundreel.systems.joint_flow.lapped import (
    HOP,
    enlarged,
    lapped,
    lapped_basis,
    overlap_frames,
    reduced,
)

COEFFICIENTS = HOP * 3
"""Numbers of a pixel and group: four coefficients of three colours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoEncoderConfig:
    """Sizes of the linear video codec.

    Attributes:
        height, width: of the frames in pixels, multiples of twice the patch.
        patch_size: side in pixels of a patch, which has `detail_dim` numbers in a group.
        layout_cell: side in pixels of the cells whose means make up the layout.
        detail_dim: principal components of a patch; a token holds two by two patches.
        motion_weight: how much more an error in what changes within a window counts than one in
            what does not, when components are chosen.
    """

    height: int = 128
    width: int = 128
    patch_size: int = 16
    layout_cell: int = 8
    detail_dim: int = 96
    motion_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            size = getattr(self, name)
            if size % (2 * self.patch_size) or size % self.layout_cell:
                raise SoundreelError(
                    f"{name} {size} must be a multiple of twice patch_size {self.patch_size} and"
                    f" of layout_cell {self.layout_cell}"
                )
        if self.motion_weight <= 0:
            raise SoundreelError(f"motion_weight must be positive, got {self.motion_weight}")
        limits = {
            "layout": COEFFICIENTS * self.layout_shape[0] * self.layout_shape[1],
            "patch": COEFFICIENTS * self.patch_size**2,
        }
        if limits["layout"] < self.token_dim or limits["patch"] < self.detail_dim:
            raise SoundreelError(
                f"detail_dim {self.detail_dim} needs a patch of at least as many numbers and a"
                f" layout of four times as many; they have {limits['patch']}, {limits['layout']}"
            )

    @property
    def token_dim(self) -> int:
        """Return numbers of a token: two by two patches, or the layout of the whole picture."""
        return 4 * self.detail_dim

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of detail tokens."""
        return self.height // (2 * self.patch_size), self.width // (2 * self.patch_size)

    @property
    def num_tokens(self) -> int:
        """Return tokens of a group: those of detail, then that of the layout."""
        return self.grid[0] * self.grid[1] + 1

    @property
    def layout_shape(self) -> tuple[int, int]:
        """Return rows and columns of the layout's cells."""
        return self.height // self.layout_cell, self.width // self.layout_cell


class VideoEncoder(nn.Module):
    """Principal components of lapped coefficients; the identity of nothing until it is fitted.

    Latents are divided by the square root of each component's deviation, so that a large component
    stays larger than a small one, but not by as much as in the pixels.
    """

    def __init__(self, config: VideoEncoderConfig) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.layout_shape
        layout, patch = COEFFICIENTS * rows * columns, COEFFICIENTS * config.patch_size**2
        for name, size, dim in (
            ("layout", layout, config.token_dim),
            ("detail", patch, config.detail_dim),
        ):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_basis", torch.zeros(size, dim))
            self.register_buffer(f"{name}_scale", torch.ones(dim))
            self.register_buffer(f"{name}_deviation", torch.ones(dim))

    def encode(
        self, frames: Float[Tensor, "batch frame 3 height width"]
    ) -> Float[Tensor, "batch group token dim"]:
        """Return the latents of every whole window, `frame / 4 - 1` groups."""
        coefficients = self._weighted(lapped(frames))
        layout = self._layout(coefficients)
        rest = coefficients - self._enlarged(layout)
        mean, basis, scale = (self.get_buffer(f"detail_{n}") for n in ("mean", "basis", "scale"))
        detail = (patches(rest, self.config.patch_size) - mean) @ basis / scale
        detail = rearrange(detail, "b g (row i) (column j) c -> b g (row column) (i j c)", i=2, j=2)
        token = layout / self.get_buffer("layout_scale")
        return torch.cat([detail, token[:, :, None]], dim=2)

    def coefficients(
        self, latents: Float[Tensor, "batch group token dim"]
    ) -> Float[Tensor, "batch group coefficient channel height width"]:
        """Return the lapped coefficients that latents stand for."""
        mean, basis, scale = (self.get_buffer(f"detail_{n}") for n in ("mean", "basis", "scale"))
        detail = self.detail_map(latents) * scale
        rest = pictures(detail @ basis.T + mean, self.config.patch_size)
        layout = latents[:, :, -1] * self.get_buffer("layout_scale")
        return mixed(rest + self._enlarged(layout), 1 / self.config.motion_weight)

    def detail_map(
        self, latents: Float[Tensor, "batch group token dim"]
    ) -> Float[Tensor, "batch group row column detail"]:
        """Return the detail of every patch at its place."""
        return rearrange(
            latents[:, :, :-1],
            "b g (row column) (i j c) -> b g (row i) (column j) c",
            row=self.config.grid[0],
            i=2,
            j=2,
        )

    def decode(
        self, latents: Float[Tensor, "batch group token dim"]
    ) -> Float[Tensor, "batch frame 3 height width"]:
        """Return the frames under two windows, `4 (group - 1)`; nothing learned is involved."""
        return overlap_frames(self.coefficients(latents))

    def _weighted(self, coefficients: Tensor) -> Tensor:
        return mixed(coefficients, self.config.motion_weight)

    def _layout(self, coefficients: Tensor) -> Float[Tensor, "batch group dim"]:
        cells = reduced(coefficients, self.config.layout_cell).flatten(2)
        return (cells - self.get_buffer("layout_mean")) @ self.get_buffer("layout_basis")

    def _enlarged(self, layout: Float[Tensor, "batch group dim"]) -> Tensor:
        cells = layout @ self.get_buffer("layout_basis").T + self.get_buffer("layout_mean")
        rows, columns = self.config.layout_shape
        shaped = cells.unflatten(2, (HOP, 3, rows, columns))
        return enlarged(shaped, self.config.layout_cell)

    @torch.no_grad()
    def fit(
        self,
        batches: Callable[[], Iterable[Float[Tensor, "batch frame 3 height width"]]],
        *,
        patch_stride: int = 1,
    ) -> None:
        """Fit both levels in closed form from two passes over the frames.

        Args:
            batches: gives the same batches of frames each time it is called.
            patch_stride: use every so manyth patch; one that shares no factor with the patches of a
                picture takes from all places alike.

        Raises:
            SoundreelError: fewer samples than components, or a component that never changes.
        """
        cell = self.config.layout_cell
        layout_std = self._fit_level(
            "layout",
            (reduced(self._weighted(lapped(x)), cell).flatten(2).flatten(0, 1) for x in batches()),
        )
        # In pixels: the mean of `cell` x `cell` equal pixels is 1 / cell of their length.
        layout_std = layout_std * cell
        remainders = (self._remainders(x)[::patch_stride] for x in batches())
        detail_std = self._fit_level("detail", remainders)
        common = detail_std.log().mean().mul(0.5).exp()
        for name, std, pixels in (("layout", layout_std, cell), ("detail", detail_std, 1)):
            self.get_buffer(f"{name}_scale").copy_(std.sqrt() * common / pixels)
            self.get_buffer(f"{name}_deviation").copy_(std.sqrt() / common)

    def _remainders(self, frames: Tensor) -> Float[Tensor, "row value"]:
        coefficients = self._weighted(lapped(frames))
        rest = coefficients - self._enlarged(self._layout(coefficients))
        return patches(rest, self.config.patch_size).flatten(0, 3)

    def _fit_level(
        self, name: str, batches: Iterable[Float[Tensor, "row value"]]
    ) -> Float[Tensor, " dim"]:
        """Set mean and basis; return the deviation of each component."""
        mean, basis = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_basis")
        centre, covariance = streamed_covariance(batches)
        values, vectors = torch.linalg.eigh(covariance)
        dim = basis.shape[1]
        std = values[-dim:].flip(0).clamp(min=0).sqrt()
        if float(std[-1]) <= 1e-6 * float(std[0]) or float(std[0]) == 0:
            raise SoundreelError(
                f"the {name} of the training pictures has fewer than {dim} directions in which it"
                " changes; train on more clips, or choose a smaller detail_dim"
            )
        mean.copy_(centre)
        basis.copy_(vectors[:, -dim:].flip(1))
        return std.to(mean)


def mixed(
    coefficients: Float[Tensor, "batch group coefficient channel height width"], weight: float
) -> Float[Tensor, "batch group coefficient channel height width"]:
    """Return the coefficients with what changes within their window times `weight`.

    What does not is the coefficients of a still picture; the rest is orthogonal to them.
    """
    still = lapped_basis().sum(1)
    still = (still / still.norm()).to(coefficients)
    part = torch.einsum("k,bgkchw->bgchw", still, coefficients)
    return weight * coefficients + (1 - weight) * still[:, None, None, None] * part[:, :, None]


def patches(
    images: Float[Tensor, "batch group coefficient channel height width"], size: int
) -> Float[Tensor, "batch group row column value"]:
    """Return the pictures cut into `size` x `size` patches."""
    return rearrange(
        images, "b g k c (row y) (column x) -> b g row column (k c y x)", y=size, x=size
    )


def pictures(
    values: Float[Tensor, "batch group row column value"], size: int
) -> Float[Tensor, "batch group coefficient channel height width"]:
    """Return the pictures whose patches are given; the inverse of `patches`."""
    return rearrange(
        values,
        "b g row column (k c y x) -> b g k c (row y) (column x)",
        k=HOP,
        y=size,
        x=size,
    )


def streamed_covariance(
    batches: Iterable[Float[Tensor, "row value"]],
) -> tuple[Float[Tensor, " value"], Float[Tensor, "value value"]]:
    """Return mean and covariance of rows that come batch by batch, in double precision."""
    count, total, products = 0, None, None
    for rows in batches:
        # Products of single precision are exact enough; their sums over a data set are not.
        sums, squares = rows.double().sum(0), (rows.T @ rows).double()
        count += len(rows)
        total = sums if total is None else total + sums
        products = squares if products is None else products.add_(squares)
    if total is None or products is None or count < 2:
        raise SoundreelError("a covariance needs at least two samples")
    mean = total / count
    return mean, products / count - mean[:, None] * mean
