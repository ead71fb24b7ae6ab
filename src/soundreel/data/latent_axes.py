"""Perceptual latents along the principal axes of a data set's, their spread made more equal.

Neighbouring positions of z_v say nearly the same, so a few axes of the space hold nearly all of its
variance: hundreds of times the noise's along the first, thousandths of it along those that hold a
movement. Diffusion's noise is the same along all: at its end the first axes still show, and the
last are lost at its beginning, so that a generator of such latents learns neither well.

Axes of whole clips smear what is sudden: a start at one time and the same start at another are
different axes, and the few that are kept hold neither. What changes within a clip can have axes of
its own, of single frames: the same few for every frame, so that nothing is lost in time.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from soundreel.errors import SoundreelError
from soundreel.types import AV, LatentSpec

LatentMoments = dict[str, Tensor]
"""`video_mean`, `video_covariance`, `audio_mean`, `audio_covariance`, over flattened latents."""

SPARE_AXES = 64
POWER_ITERATIONS = 6
FLOOR = 1e-6  # of the largest variance: axes that hold less are not stretched further


@dataclass(frozen=True, kw_only=True)
class LatentAxesConfig:
    """Scaling of latents.

    Attributes:
        num_axes: principal axes that are kept, at most a latent's elements.
        whitening: what is done about the axes' unequal spread. With variance v along an axis, what
            the generator sees has v^(1 - whitening): 0 leaves it, 1 makes all axes equal.
        num_frames: cosine coefficients over time that z_v holds (see `TemporalStack`), if its
            changes have axes of their own; 1: all of z_v has one set of axes.
        movement_axes: those axes, of a single frame's changes. `num_axes` are then of the mean over
            the frames alone, which counts as much as all changes together.
    """

    old_keys: ClassVar[Mapping[str, str | None]] = {"evening": "whitening"}
    removed: ClassVar[Mapping[str, Any]] = {"motion_energy": 0.0, "activity": 0.0}

    latents: LatentSpec
    num_axes: int
    whitening: float = 0.5
    num_frames: int = 1
    movement_axes: int = 0

    def __post_init__(self) -> None:
        if self.num_axes < 1:
            raise SoundreelError(f"num_axes must be positive, got {self.num_axes}")
        if not 0 <= self.whitening <= 1:
            raise SoundreelError(f"whitening lies within [0, 1], got {self.whitening}")
        if (self.num_frames > 1) != (self.movement_axes > 0):
            raise SoundreelError(
                "num_frames above 1 and movement_axes above 0 belong together, got "
                f"{self.num_frames} and {self.movement_axes}"
            )
        if self.num_frames < 1 or self.latents.video_channels % self.num_frames:
            raise SoundreelError(
                f"{self.latents.video_channels} channels of z_v are not divisible among "
                f"num_frames={self.num_frames} coefficients"
            )

    def for_count(self, count: int) -> "LatentAxesConfig":
        """Return it with no more axes than so many latents span."""
        return replace(self, num_axes=min(self.num_axes, max(count - 1, 1)))

    @property
    def parts(self) -> dict[str, tuple["LatentPart", ...]]:
        """Return what of z_v and z_a has axes of its own."""
        latents, count = self.latents, self.num_frames
        video_channels = latents.video_channels // count
        size, level = latents.video_size, count / 2 if count > 1 else 1.0
        still = LatentPart("video", 1, (video_channels, size, size), self.num_axes, level)
        video: tuple[LatentPart, ...] = (still,)
        if count > 1:
            level /= count - 1
            moving = LatentPart("movement", count - 1, still.shape, self.movement_axes, level)
            video = (still, moving)
        audio = LatentPart("audio", 1, latents.audio_shape, self.num_axes)
        return {"video": video, "audio": (audio,)}


@dataclass(frozen=True)
class LatentPart:
    """Channels of a latent that share axes.

    Attributes:
        count: images that have the same axes, one after the other in the channels.
        shape: channel, height, width of one of them.
        wanted: axes to keep.
        level: mean variance of its elements once they are standardised.
    """

    name: str
    count: int
    shape: tuple[int, int, int]
    wanted: int
    level: float = 1.0

    @property
    def elements(self) -> int:
        channels, height, width = self.shape
        return channels * height * width

    @property
    def kept(self) -> int:
        return min(self.wanted, self.elements)

    @property
    def variance(self) -> float:
        """Return mean over the kept axes, once they are standardised."""
        return self.level * self.elements / self.kept


class PerceptualAxes(nn.Module):
    """z_v and z_a with the spread along their principal axes whitened out, in their own shape.

    Rotated to the axes, scaled and rotated back, so that what a position says stays near it. What
    lies outside the kept axes is left out. Unit variance on average over the elements.
    """

    def __init__(self, config: LatentAxesConfig) -> None:
        super().__init__()
        self.config = config
        for name, parts in config.parts.items():
            self.register_buffer(f"{name}_mean", torch.zeros(shape_of(config.latents, name)))
            for part in parts:
                self.register_buffer(f"{part.name}_axes", torch.eye(part.kept, part.elements))
                self.register_buffer(f"{part.name}_scale", torch.ones(part.kept))
                self.register_buffer(f"{part.name}_spread", torch.ones(part.kept))

    @classmethod
    def measured(cls, config: LatentAxesConfig, moments: LatentMoments) -> "PerceptualAxes":
        """Return axes and scales from `latent_moments`."""
        axes = cls(config)
        for name, parts in config.parts.items():
            mean = axes.get_buffer(f"{name}_mean")
            mean.copy_(moments[f"{name}_mean"].reshape(mean.shape))
            covariance, start = moments[f"{name}_covariance"].double(), 0
            for part in parts:
                own = covariance.new_zeros(part.elements, part.elements)
                for _ in range(part.count):
                    place = slice(start, start + part.elements)
                    own += covariance[place, place] / part.count
                    start += part.elements
                variance, directions = leading_axes(own, part.kept)
                variance = variance.clamp(min=FLOOR * float(variance[0]))
                whitened = variance ** (1 - config.whitening)
                unit = (whitened.sum() / part.elements / part.level).sqrt()
                axes.get_buffer(f"{part.name}_axes").copy_(directions.T)
                axes.get_buffer(f"{part.name}_scale").copy_(
                    variance.sqrt() / whitened.sqrt() * unit
                )
                axes.get_buffer(f"{part.name}_spread").copy_(whitened.sqrt() / unit)
        return axes

    def standardize(self, latents: AV) -> AV:
        """Return as the generator sees them; `... channel height width`."""
        for name in latents.present:
            mean = self.get_buffer(f"{name}_mean").to(latents[name])
            centred = latents[name] - mean
            scaled = self._along_axes(centred, name, lambda part: 1 / self._of(part, "scale"))
            latents = latents.replace(name, scaled)
        return latents

    def noise(self, white: AV, signal_share: float = 0.0) -> AV:
        """Return noise for latents along these axes, from white noise of their shape.

        Equally strong along all kept axes of a part, and nothing outside of them, where no latent
        is: a network would only have to carry it through. As strong as the part's latents on
        average over the elements.

        Args:
            signal_share: a training chain's end is no pure noise: of its variance this share is the
                latents', which are far larger than the noise along their first axes. The noise gets
                their spread to that extent, as if they were normally distributed.
        """

        def stretch(part: LatentPart) -> Tensor:
            variance = part.variance * (1 - signal_share)
            return (variance + signal_share * self._of(part, "spread").square()).sqrt()

        for name in white.present:
            white = white.replace(name, self._along_axes(white[name], name, stretch))
        return white

    def restore(self, latents: AV) -> AV:
        """Return inverse of `standardize`, but for what lies outside the kept axes."""
        for name in latents.present:
            scaled = self._along_axes(latents[name], name, lambda part: self._of(part, "scale"))
            latents = latents.replace(name, scaled + self.get_buffer(f"{name}_mean").to(scaled))
        return latents

    def project(self, latents: AV) -> AV:
        """Return what of the latents lies along the kept axes, at their own scale."""
        return self.restore(self.standardize(latents))

    def _of(self, part: LatentPart, kind: str) -> Tensor:
        return self.get_buffer(f"{part.name}_{kind}")

    def _along_axes(
        self,
        x: Float[Tensor, "*axes channel height width"],
        name: str,
        scale: Callable[[LatentPart], Float[Tensor, " axis"]],
    ) -> Float[Tensor, "*axes channel height width"]:
        done, parts = [], self.config.parts[name]
        sizes = [part.count * part.elements for part in parts]
        with in_full_precision(x):
            for part, own in zip(parts, x.flatten(-3).split(sizes, dim=-1), strict=True):
                axes = self._of(part, "axes").to(x)
                images = own.unflatten(-1, (part.count, part.elements))
                done.append(((images @ axes.T * scale(part).to(x)) @ axes).flatten(-2))
        return torch.cat(done, dim=-1).reshape(x.shape)


def in_full_precision(x: Tensor) -> torch.autocast:
    """Work without mixed precision: the last axes are far below the first."""
    return torch.autocast(x.device.type, enabled=False)


def leading_axes(
    covariance: Float[Tensor, "element element"], count: int
) -> tuple[Float[Tensor, " axis"], Float[Tensor, "element axis"]]:
    """Return the largest eigenvalues and their vectors, by power iterations of a few more than
    those.

    A full decomposition of 8,192 elements takes minutes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spare = min(count + SPARE_AXES, len(covariance))
        directions, variance, _ = torch.svd_lowrank(covariance, q=spare, niter=POWER_ITERATIONS)
    return variance[:count], directions[:, :count]


def latent_moments(latents: Iterable[AV]) -> LatentMoments:
    """Return mean and covariance of all elements, of batches `batch channel height width`.

    Raises:
        SoundreelError: fewer than two latents.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for batch in latents:
        count += batch.batch_size
        for name in batch.present:
            rows = batch[name].double().flatten(1)
            for key, value in ((f"{name}_mean", rows.sum(0)), (f"{name}_square", rows.T @ rows)):
                sums[key] = sums[key] + value if key in sums else value
    if count < 2:
        raise SoundreelError("the axes of latents need at least two of them")
    moments = {}
    for name in ("video", "audio"):
        mean = sums[f"{name}_mean"] / count
        moments[f"{name}_mean"] = mean
        square = sums[f"{name}_square"] / count
        moments[f"{name}_covariance"] = square - mean[:, None] * mean[None]
    return moments


def shape_of(latents: LatentSpec, modality: str) -> tuple[int, int, int]:
    """Return channel, height, width of z_v or z_a."""
    return latents.video_shape if modality == "video" else latents.audio_shape
