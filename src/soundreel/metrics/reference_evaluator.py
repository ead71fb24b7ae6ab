"""Reproduce the public MM-Diffusion evaluator and data loader, under names that say so.

Use these only to compare with published figures; soundreel's own path is `soundreel.media` and the
functions of the other modules here. The quirks kept on purpose: the square root that leaves
singular values below 1e-10 unrooted, audio intervals that end one source frame after the last
sampled frame, the choice of antialiasing, mirrored training clips, and the factor on the audio
distance.

Axis letters: b batch, f frame, c channel, h height, w width.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from einops import rearrange
from jaxtyping import Float, Num, UInt8
from torch import Tensor
from torch.nn import functional

from soundreel.metrics.frechet import Features, check_features

IMAGES_AT_ONCE = 4  # bounds memory whatever the pictures' size


def reference_frechet_distance(real: Features, fake: Features) -> float:
    """Compute the Frechet distance in the dtype of the features, with the evaluator's square root.

    Source:
        MM-Diffusion `evaluations/fvd/fvd.py`.
    """
    check_features(real, fake)

    def root(matrix: Tensor) -> Tensor:
        left, values, right = torch.linalg.svd(matrix)
        rooted = torch.where(values < 1e-10, values, values.sqrt())
        return left @ rooted.diag() @ right

    root_real = root(torch.cov(real.T))
    covariance_fake = torch.cov(fake.T)
    cross = root(root_real @ covariance_fake @ root_real).trace()
    trace = (torch.cov(real.T) + covariance_fake).trace() - 2 * cross
    return float(trace + (real.mean(dim=0) - fake.mean(dim=0)).square().sum())


def reference_video_input(
    frames: UInt8[Tensor, "batch frame channel height width"], resolution: int = 224
) -> Float[Tensor, "batch channel frame size size"]:
    """Prepare frames as the video metric's network takes them, with values in [-1, 1].

    The short side becomes `resolution`, bilinear without antialiasing; the centre is cut out.
    """
    batch, _, _, height, width = frames.shape
    scale = resolution / min(height, width)
    size = (
        (resolution, math.ceil(width * scale))
        if height < width
        else (math.ceil(height * scale), resolution)
    )
    top, left = (size[0] - resolution) // 2, (size[1] - resolution) // 2
    rows, columns = slice(top, top + resolution), slice(left, left + resolution)
    images = []
    for part in rearrange(frames, "b f c h w -> (b f) c h w").split(IMAGES_AT_ONCE):
        part = part.float() / 255
        part = functional.interpolate(part, size=size, mode="bilinear", align_corners=False)
        images.append((part[:, :, rows, columns] - 0.5) * 2)
    return rearrange(torch.cat(images), "(b f) c h w -> b c f h w", b=batch)


def reference_resize_and_pad(
    frames: UInt8[Tensor, "frame height width channel"],
    height: int,
    width: int,
    antialias: bool,
    mirror: bool = False,
) -> UInt8[Tensor, "frame channel out_height out_width"]:
    """Make the data loader's frames: aspect kept, bicubic, centred in black.

    Args:
        antialias: True as with current torchvision releases, False as at the time of publication.
        mirror: True as in training, where the flip probability is 1.
    """
    _, old_height, old_width, _ = frames.shape
    ratio = min(height / old_height, width / old_width)
    new_height, new_width = int(old_height * ratio), int(old_width * ratio)
    images = rearrange(frames, "f h w c -> f c h w").float()
    images = functional.interpolate(
        images,
        size=(new_height, new_width),
        mode="bicubic",
        align_corners=False,
        antialias=antialias,
    )
    images = images.clamp(0, 255).round().to(torch.uint8)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    images = functional.pad(
        images, (left, width - new_width - left, top, height - new_height - top)
    )
    return images.flip(-1) if mirror else images


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceClip:
    """Source frames and interval of sound that make one clip."""

    source_frames: tuple[int, ...]
    audio_start_s: float
    audio_end_s: float


def reference_clips(
    num_frames: int,
    frame_rate: int | float | Fraction,
    clip_length: int = 16,
    stride: int = 1,
    target_frame_rate: int | float | Fraction = 10,
) -> list[ReferenceClip]:
    """Cut the data loader's clips of a source of constant frame rate.

    The interval of sound ends one *source* frame after the last frame chosen, so that sources
    faster than `target_frame_rate` give less sound than picture, and the loader fills up with
    zeros.

    Source:
        MM-Diffusion `mm_diffusion/multimodal_datasets.py` over torchvision's `VideoClips`.
    """
    ratio = float(frame_rate) / float(target_frame_rate)
    if ratio.is_integer():
        chosen = list(range(0, num_frames, int(ratio)))
    else:
        count = math.floor(num_frames / ratio)
        steps = torch.arange(count, dtype=torch.float32) * ratio
        chosen = steps.floor().long().tolist()
    starts = range(0, len(chosen) - clip_length + 1, stride)
    clips = []
    for start in starts:
        frames = tuple(chosen[start : start + clip_length])
        clips.append(
            ReferenceClip(
                source_frames=frames,
                audio_start_s=_single_precision(frames[0] / float(frame_rate)),
                audio_end_s=_single_precision((frames[-1] + 1) / float(frame_rate)),
            )
        )
    return clips


def reference_fit_audio(
    waveform: Num[Tensor, "channel sample"], num_samples: int
) -> Num[Tensor, "1 fitted"]:
    """Prepare the data loader's sound: the first channel alone, cut or zero-padded at its end."""
    first = waveform[:1, :num_samples]
    return functional.pad(first, (0, num_samples - first.shape[1]))


def _single_precision(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))
