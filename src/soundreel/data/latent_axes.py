"""Perceptual latents along the principal axes of a data set's, their spread made more equal.

Neighbouring positions of z_v say nearly the same, so a few axes of the space hold nearly all of its
variance: hundreds of times the noise's along the first, thousandths of it along those that hold a
movement. Diffusion's noise is the same along all: at its end the first axes still show, and the
last are lost at its beginning, so that a generator of such latents learns neither well.

Axes of whole clips smear what is sudden: a start at one time and the same start at another are
different axes, and the few that are kept hold neither. What changes within a clip can have axes of
its own, of single frames: the same few for every frame, so that nothing is lost in time. One more
axis can say outright how much each frame changes. That is what a sound tells of the picture,
whatever it shows, and a network would have to find it as the size of many numbers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from soundreel.errors import SoundreelError
from soundreel.nn.waves import cosine_waves
from soundreel.types import AV, LatentSpec

LatentMoments = dict[str, Tensor]
"""`video_mean`, `video_covariance`, `audio_mean`, `audio_covariance`, over flattened latents."""

SPARE_AXES = 64
POWER_ITERATIONS = 6
MOTION_ENERGY_FLOOR = 0.03  # of a place's mean energy: changes below it are none
MOTION_ENERGY_SPREAD = 0.6  # of the logarithm, over frames of rendered scenes
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
        motion_energy: standard deviation of a further axis that holds how much each frame changes,
            as a multiple of the movement axes' own; 0: no such axis.
    """

    old_keys: ClassVar[Mapping[str, str | None]] = {
        "evening": "whitening",
        "activity": "motion_energy",
    }

    latents: LatentSpec
    num_axes: int
    whitening: float = 0.5
    num_frames: int = 1
    movement_axes: int = 0
    motion_energy: float = 0.0

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
        if self.motion_energy < 0 or (self.motion_energy and not self.movement_axes):
            raise SoundreelError(
                "motion_energy is 0, or a positive factor beside movement_axes, got "
                f"{self.motion_energy}"
            )
        if self.num_frames < 1 or self.latents.video_channels % self.num_frames:
            raise SoundreelError(
                f"{self.latents.video_channels} channels of z_v are not divisible among "
                f"num_frames={self.num_frames} coefficients"
            )
        if self.motion_energy and self.parts["video"][1].kept == self.parts["video"][1].elements:
            raise SoundreelError(
                f"motion_energy needs a direction that movement leaves: set movement_axes below "
                f"{self.parts['video'][1].elements}, got {self.movement_axes}"
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
        # Its name in stored weights.
        self.activity = MotionEnergyAxis(config) if config.motion_energy else None

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
                if axes.activity is not None and part.name == "movement":
                    axes.activity.place(directions, variance)
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
            if self.activity is not None and name == "video":
                kept = self._along_axes(centred, name, lambda part: torch.ones(part.kept))
                with in_full_precision(scaled):
                    scaled = scaled + self.activity(kept)
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
            made = self._along_axes(white[name], name, stretch)
            if self.activity is not None and name == "video":
                with in_full_precision(made):
                    made = made + self.activity.noise(white[name], signal_share)
            white = white.replace(name, made)
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


class MotionEnergyAxis(nn.Module):
    """Change of each frame of z_v from the one before, along an axis that movement leaves.

    The mean over the places of the logarithm of the change's energy, without its mean over the
    frames, as cosine coefficients over time like all else in z_v.
    """

    def __init__(self, config: LatentAxesConfig) -> None:
        super().__init__()
        _, movement = config.parts["video"]
        self.part = movement
        self.spread = config.motion_energy * movement.variance**0.5
        self.register_buffer("axis", torch.zeros(movement.elements))
        self.register_buffer("energy", torch.ones(()))  # of a place
        self.register_buffer("waves", cosine_waves(config.num_frames), persistent=False)

    def place(
        self, directions: Float[Tensor, "element axis"], variance: Float[Tensor, " axis"]
    ) -> None:
        """Take the direction, of those outside the movement's, that has the least of its elements.

        Args:
            directions: the movement's axes; variance: along them.
        """
        outside = torch.eye(len(directions)).to(directions) - directions @ directions.T
        chosen = outside[:, outside.diagonal().argmax()]
        self.get_buffer("axis").copy_(chosen / chosen.norm())
        places = self.part.shape[1] * self.part.shape[2]
        self.get_buffer("energy").copy_(variance.sum() / places)

    def forward(
        self, latent: Float[Tensor, "*axes channel height width"]
    ) -> Float[Tensor, "*axes channel height width"]:
        """Return what is added to standardised latents.

        Args:
            latent: at its own scale, its mean over the data set taken away.
        """
        still = latent.shape[-3] - self.part.count * self.part.shape[0]
        waves = self.get_buffer("waves").to(latent)
        coefficients = latent[..., still:, :, :].unflatten(-3, (self.part.count, -1))
        frames = torch.einsum("tk,...kchw->...tchw", waves, coefficients)
        change = frames.diff(dim=-4).square().sum(dim=-3).flatten(-2)
        energy = change / self.get_buffer("energy").to(latent) + MOTION_ENERGY_FLOOR
        level = energy.log().mean(dim=-1)
        level = torch.cat([level[..., :1], level], dim=-1)  # nothing comes before the first frame
        size = self.spread / MOTION_ENERGY_SPREAD
        return self._along(size * torch.einsum("tk,...t->...k", waves, level), still)

    def noise(
        self, white: Float[Tensor, "*axes channel height width"], signal_share: float
    ) -> Float[Tensor, "*axes channel height width"]:
        """Weigh as strongly as along an axis of movement; see `PerceptualAxes.noise`."""
        still = white.shape[-3] - self.part.count * self.part.shape[0]
        rows = white[..., still:, :, :].flatten(-3).unflatten(-1, (self.part.count, -1))
        variance = (1 - signal_share) * self.part.variance + signal_share * self.spread**2
        return self._along(variance**0.5 * (rows @ self.get_buffer("axis").to(white)), still)

    def _along(
        self, coefficients: Float[Tensor, "*axes coefficient"], still: int
    ) -> Float[Tensor, "*axes channel height width"]:
        rows = coefficients[..., None] * self.get_buffer("axis").to(coefficients)
        moving = rows.flatten(-2).unflatten(-1, (-1, *self.part.shape[1:]))
        return functional.pad(moving, (0, 0, 0, 0, still, 0))


def leading_axes(
    covariance: Float[Tensor, "element element"], count: int
) -> tuple[Float[Tensor, " axis"], Float[Tensor, "element axis"]]:
    """Return the largest eigenvalues and their vectors, by power iterations of a few more than
    those.

    A full decomposition of the default model's 8,192 elements takes minutes.
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
