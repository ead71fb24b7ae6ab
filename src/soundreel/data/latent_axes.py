"""Perceptual latents along the principal axes of a data set's, their spread evened out.

Neighbouring positions of z_v say nearly the same, so a few axes of the space hold nearly all of its
variance: hundreds of times the noise's along the first, thousandths of it along those that hold a
movement. Diffusion's noise is the same along all: at its end the first axes still show, and the
last are lost at its beginning, so that a generator of such latents learns neither well.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from soundreel.types import AV, LatentSpec

LatentMoments = dict[str, Tensor]
"""`video_mean`, `video_covariance`, `audio_mean`, `audio_covariance`, over flattened latents."""

SPARE_AXES = 64
POWER_ITERATIONS = 6
FLOOR = 1e-6  # of the largest variance: axes that hold less are not stretched further


@dataclass(frozen=True, kw_only=True)
class LatentAxesConfig:
    """How latents are scaled.

    Attributes:
        num_axes: principal axes that are kept, at most a latent's elements.
        evening: what is done about the axes' unequal spread. With variance v along an axis, what
            the generator sees has v^(1 - evening): 0 leaves it, 1 makes all axes equal.
        video_weights: factors on z_v's channels before the axes are sought: the axes keep more of
            what weighs more. Empty weighs all channels alike.
    """

    latents: LatentSpec
    num_axes: int
    evening: float = 0.5
    video_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.num_axes < 1:
            raise ValueError(f"num_axes must be positive, got {self.num_axes}")
        if not 0 <= self.evening <= 1:
            raise ValueError(f"evening lies within [0, 1], got {self.evening}")
        channels = self.latents.video_channels
        if self.video_weights and len(self.video_weights) != channels:
            raise ValueError(
                f"video_weights has {len(self.video_weights)} factors for {channels} channels"
            )
        if not all(weight > 0 for weight in self.video_weights):
            raise ValueError("video_weights are positive factors")

    def for_count(self, count: int) -> "LatentAxesConfig":
        """With no more axes than so many latents span."""
        return replace(self, num_axes=min(self.num_axes, max(count - 1, 1)))

    def kept(self, modality: str) -> int:
        """Axes of one modality."""
        channels, height, width = shape_of(self.latents, modality)
        return min(self.num_axes, channels * height * width)


def cosine_weights(
    latents: LatentSpec, image_channels: int, movement_weight: float, movement_slope: float
) -> tuple[float, ...]:
    """Weights of a z_v that holds a clip's cosine coefficients over time; see `TemporalStack`.

    Coefficient 0, the mean over the frames, has weight 1, coefficient k
    `movement_weight * k ** movement_slope`.

    Args:
        image_channels: z_v's channels per coefficient.
    """
    frequencies = [channel // image_channels for channel in range(latents.video_channels)]
    return tuple(movement_weight * k**movement_slope if k else 1.0 for k in frequencies)


class PerceptualAxes(nn.Module):
    """z_v and z_a with the spread along their principal axes evened out, in their own shape.

    Rotated to the axes, scaled and rotated back, so that what a position says stays near it. What
    lies outside the kept axes is left out. Unit variance on average over the elements.
    """

    def __init__(self, config: LatentAxesConfig) -> None:
        super().__init__()
        self.config = config
        for name in ("video", "audio"):
            shape = shape_of(config.latents, name)
            elements = shape[0] * shape[1] * shape[2]
            self.register_buffer(f"{name}_mean", torch.zeros(shape))
            self.register_buffer(f"{name}_axes", torch.eye(config.kept(name), elements))
            self.register_buffer(f"{name}_scale", torch.ones(config.kept(name)))
            self.register_buffer(f"{name}_spread", torch.ones(config.kept(name)))

    @classmethod
    def measured(cls, config: LatentAxesConfig, moments: LatentMoments) -> "PerceptualAxes":
        """Axes and scales from `latent_moments`."""
        axes = cls(config)
        for name in ("video", "audio"):
            weight = axes._weight(name).double().expand(shape_of(config.latents, name)).flatten()
            covariance = weight[:, None] * moments[f"{name}_covariance"].double() * weight
            variance, directions = leading_axes(covariance, config.kept(name))
            variance = variance.clamp(min=FLOOR * float(variance[0]))
            elements = directions.shape[0]
            evened = variance ** (1 - config.evening)
            unit = (evened.sum() / elements).sqrt()
            mean = axes.get_buffer(f"{name}_mean")
            mean.copy_(moments[f"{name}_mean"].reshape(mean.shape))
            axes.get_buffer(f"{name}_axes").copy_(directions.T)
            axes.get_buffer(f"{name}_scale").copy_(variance.sqrt() / evened.sqrt() * unit)
            axes.get_buffer(f"{name}_spread").copy_(evened.sqrt() / unit)
        return axes

    def standardize(self, latents: AV) -> AV:
        """As the generator sees them; `... channel height width`."""
        for name in latents.present:
            centred = latents[name] - self.get_buffer(f"{name}_mean").to(latents[name])
            weighted = centred * self._weight(name).to(centred)
            scaled = self._along_axes(weighted, name, 1 / self.get_buffer(f"{name}_scale"))
            latents = latents.replace(name, scaled)
        return latents

    def noise(self, white: AV, signal_share: float = 0.0) -> AV:
        """Noise for latents along these axes, from white noise of their shape.

        Equally strong along all kept axes, and nothing outside of them, where no latent is: a
        network would only have to carry it through. Unit variance on average over the elements.

        Args:
            signal_share: a training chain's end is no pure noise: of its variance this share is the
                latents', which are far larger than the noise along their first axes. The noise gets
                their spread to that extent, as if they were normally distributed.
        """
        for name in white.present:
            axes, spread = self.get_buffer(f"{name}_axes"), self.get_buffer(f"{name}_spread")
            variance = axes.shape[1] / axes.shape[0] * (1 - signal_share)
            stretch = (variance + signal_share * spread.square()).sqrt()
            white = white.replace(name, self._along_axes(white[name], name, stretch))
        return white

    def restore(self, latents: AV) -> AV:
        """Inverse of `standardize`, but for what lies outside the kept axes."""
        for name in latents.present:
            scaled = self._along_axes(latents[name], name, self.get_buffer(f"{name}_scale"))
            mean = self.get_buffer(f"{name}_mean").to(scaled)
            latents = latents.replace(name, scaled / self._weight(name).to(scaled) + mean)
        return latents

    def project(self, latents: AV) -> AV:
        """What of the latents lies along the kept axes, at their own scale."""
        return self.restore(self.standardize(latents))

    def _weight(self, name: str) -> Float[Tensor, "channel_or_1 1 1"]:
        weights = self.config.video_weights if name == "video" else ()
        return torch.tensor(weights or (1.0,))[:, None, None]

    def _along_axes(
        self, x: Float[Tensor, "*axes channel height width"], name: str, scale: Tensor
    ) -> Float[Tensor, "*axes channel height width"]:
        axes = self.get_buffer(f"{name}_axes").to(x)
        with torch.autocast(x.device.type, enabled=False):  # the last axes are far below the first
            return ((x.flatten(-3) @ axes.T * scale.to(x)) @ axes).reshape(x.shape)


def leading_axes(
    covariance: Float[Tensor, "element element"], count: int
) -> tuple[Float[Tensor, " axis"], Float[Tensor, "element axis"]]:
    """The largest eigenvalues and their vectors, by power iterations of a few more than those.

    A full decomposition of the default model's 8,192 elements takes minutes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spare = min(count + SPARE_AXES, len(covariance))
        directions, variance, _ = torch.svd_lowrank(covariance, q=spare, niter=POWER_ITERATIONS)
    return variance[:count], directions[:, :count]


def latent_moments(latents: Iterable[AV]) -> LatentMoments:
    """Mean and covariance of all elements, of batches `batch channel height width`.

    Raises:
        ValueError: fewer than two latents.
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
        raise ValueError("the axes of latents need at least two of them")
    moments = {}
    for name in ("video", "audio"):
        mean = sums[f"{name}_mean"] / count
        moments[f"{name}_mean"] = mean
        square = sums[f"{name}_square"] / count
        moments[f"{name}_covariance"] = square - mean[:, None] * mean[None]
    return moments


def shape_of(latents: LatentSpec, modality: str) -> tuple[int, int, int]:
    """Channel, height, width of z_v or z_a."""
    return latents.video_shape if modality == "video" else latents.audio_shape
