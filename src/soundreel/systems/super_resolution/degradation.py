"""Make and damage the small image of a super-resolution training pair.

MM-Diffusion's supplement: the large frame is reduced; then, each with probability 0.5, Gaussian
noise is added and a JPEG round trip follows, so that the network copes with the base model's flaws.
Flips are the data set's matter (`flip_probability`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from soundreel.data.loader import Batch, sample_generator
from soundreel.errors import SoundreelError
from soundreel.media.jpeg import jpeg_round_trip
from soundreel.types import AV

# Third number in a sample's seed, after the loader's own two kinds of draws.
_DRAW = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class DegradationConfig:
    """Settings of the damage; the defaults are the supplement's.

    Args:
        low_res_size: pixels along each side of the small image.
        antialias: low-pass before reducing, as our prepared data sets are made. The published code
            does not; set it to False to train as it does.
        noise_probability, noise_sigma: how often noise is added, and the range of its standard
            deviation in grey levels (of 255). The sum is not clipped.
        jpeg_probability, jpeg_quality: how often the image goes through JPEG, and the range of
            qualities, both ends included.
    """

    low_res_size: int = 64
    antialias: bool = True
    noise_probability: float = 0.5
    noise_sigma: tuple[float, float] = (0.0, 20.0)
    jpeg_probability: float = 0.5
    jpeg_quality: tuple[int, int] = (20, 80)

    def __post_init__(self) -> None:
        for name in ("noise_probability", "jpeg_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise SoundreelError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name, (low, high) in (("noise", self.noise_sigma), ("jpeg", self.jpeg_quality)):
            if not 0 <= low <= high:
                raise SoundreelError(
                    f"the {name} range must be ascending from 0, got {(low, high)}"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePairs:
    """A training batch of frames in two sizes.

    Attributes:
        av: the large frames as `video`, `batch channel height width` in [-1, 1]; no audio.
        low_res: the small ones, degraded; noise may take them beyond [-1, 1].
        label, keys, sample_index: those of the batch the frames come from.
    """

    av: AV
    low_res: Float[Tensor, "batch channel low_height low_width"]
    label: Int[Tensor, " batch"]
    keys: tuple[str, ...]
    sample_index: int


def reduce_images(
    images: Float[Tensor, "batch channel height width"], config: DegradationConfig
) -> Float[Tensor, "batch channel low_height low_width"]:
    """Return the images with their shorter side at `low_res_size`, on whole grey levels in [-1,
    1]."""
    height, width = images.shape[2:]
    factor, rest = divmod(min(height, width), config.low_res_size)
    if rest or not factor or max(height, width) % factor:
        raise SoundreelError(
            f"images of {height}x{width} do not reduce to {config.low_res_size} pixels by a whole "
            "factor; prepare the data set at a multiple of low_res_size"
        )
    small = functional.interpolate(
        images,
        (height // factor, width // factor),
        mode="bicubic",
        antialias=config.antialias,
    )
    return _from_levels(_to_levels(small).round().clamp(0, 255))


def degrade(
    low_res: Float[Tensor, "channel height width"],
    config: DegradationConfig,
    generator: torch.Generator,
) -> Float[Tensor, "channel height width"]:
    """Add noise and JPEG damage, each by chance.

    Every call draws the same amount of randomness whatever is applied.

    Source:
        Ruan et al. 2023, supplement, section on super-resolution.
    """
    adds_noise, uses_jpeg, sigma_share, quality_share = torch.rand(4, generator=generator).tolist()
    noise = torch.randn(low_res.shape, generator=generator)
    levels = _to_levels(low_res)
    if adds_noise < config.noise_probability:
        low, high = config.noise_sigma
        levels = levels + (low + sigma_share * (high - low)) * noise
    if uses_jpeg < config.jpeg_probability:
        worst, best = config.jpeg_quality
        quality = min(best, int(worst + quality_share * (best - worst + 1)))
        levels = jpeg_round_trip(levels, quality)
    return _from_levels(levels)


def image_pairs(
    batches: Iterable[Batch], config: DegradationConfig, *, seed: int
) -> Iterator[ImagePairs]:
    """Yield training pairs from batches of one-frame windows.

    The damage of a sample depends on the seed and its number among the samples seen, so that a
    resumed run repeats an uninterrupted one.

    Raises:
        SoundreelError: windows of more than one frame, or of a size that does not reduce evenly.
    """
    for batch in batches:
        video = batch.av["video"]
        if video.shape[1] != 1:
            raise SoundreelError(
                f"super-resolution learns from single frames, got windows of {video.shape[1]}; "
                "use a ClipSpec with num_frames=1"
            )
        images = video[:, 0]
        low_res = [
            degrade(image, config, sample_generator(seed, _DRAW, batch.sample_index + row))
            for row, image in enumerate(reduce_images(images, config))
        ]
        yield ImagePairs(
            av=AV(images, None),
            low_res=torch.stack(low_res),
            label=batch.label,
            keys=batch.keys,
            sample_index=batch.sample_index,
        )


def _to_levels(x: Tensor) -> Tensor:
    return (x + 1) * 127.5


def _from_levels(levels: Tensor) -> Tensor:
    return levels / 127.5 - 1
