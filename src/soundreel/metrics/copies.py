"""Nearest known clips of generated ones: among the real clips, or in the training set.

Without a training set the known clips are the real ones, and ordinary is how far a real clip is
from the nearest other. With one, every stretch of every training clip is looked at, and ordinary is
how far real clips that were *not* trained on are from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.metrics.measure import ClipItem, MeasuredSet, Skipped, checked, for_each_clip
from soundreel.metrics.memorisation import (
    Memorisation,
    NearestSearch,
    describe_picture,
    describe_sound,
    judge_copies,
)
from soundreel.metrics.streams import Watched, watch
from soundreel.types import frame_to_sample

STRETCH_STEP_S = 0.2
MAX_TRAINING_S = 60.0  # so much of a training clip is looked at; prepared clips are shorter


@dataclass(frozen=True, kw_only=True, slots=True)
class Copies:
    """Nearest known clips in both modalities.

    Attributes:
        known: what the known clips are.
        num_known: how many there are.
        skipped: training clips that could not be read or are too short.
    """

    picture: Memorisation
    sound: Memorisation
    known: Literal["real", "training"]
    num_known: int
    skipped: tuple[Skipped, ...] = ()


def copies_among_real(real: MeasuredSet, generated: MeasuredSet) -> Copies:
    """Find the nearest real clips of generated ones.

    Raises:
        SoundreelError: fewer than three real clips, or copies of one clip only.
    """
    picture, sound = _searches(real, generated)
    for index, name in enumerate(real.names):
        picture.see(name, [0.0], real.pictures[index : index + 1], own=index)
        sound.see(name, [0.0], real.sounds[index : index + 1], own=index)
    return _copies(picture, sound, real, generated, "real", len(real.names), [])


def copies_of_training(
    training: Sequence[ClipItem],
    real: MeasuredSet,
    generated: MeasuredSet,
    duration_s: float,
    advance: Callable[[int, int], None],
) -> Copies:
    """Find the nearest training clips of generated ones, one training clip in memory at a time.

    Args:
        real: clips that were not trained on.
        duration_s: of the stretches that are compared; one starts every 0.2 s.

    Raises:
        SoundreelError: fewer than three real clips, or ones that are in the training set.
    """
    picture, sound = _searches(real, generated)

    def look(item: ClipItem) -> None:
        whole = watch(item.open(max(duration_s, MAX_TRAINING_S)), None)
        starts_s, pictures, sounds = describe_stretches(checked(whole, duration_s), duration_s)
        picture.see(item.name, starts_s, pictures)
        sound.see(item.name, starts_s, sounds)

    skipped = for_each_clip(training, look, advance)
    num_known = len(training) - len(skipped)
    return _copies(picture, sound, real, generated, "training", num_known, skipped)


def describe_stretches(
    clip: Watched, duration_s: float
) -> tuple[list[float], Float[Tensor, "stretch _picture"], Float[Tensor, "stretch _sound"]]:
    """Describe the stretches of a clip that start every 0.2 s: their starts, pictures and sounds.

    A stretch is a frame shorter where rounding would lead beyond the clip's end.
    """
    rates = (clip.frame_rate, clip.sample_rate)
    last_s = max(0.0, clip.duration_s - duration_s)
    starts_s = [
        round(k * STRETCH_STEP_S, 3) for k in range(1 + int(last_s / STRETCH_STEP_S + 1e-6))
    ]
    pictures, sounds = [], []
    for start_s in starts_s:
        begin = round(start_s * clip.frame_rate)
        end = min(begin + round(duration_s * clip.frame_rate), clip.num_frames)
        first, last = (frame_to_sample(frame, *rates) for frame in (begin, end))
        pictures.append(describe_picture(clip.thumbnails[begin:end]))
        sounds.append(describe_sound(clip.waveform[:, first:last]))
    return starts_s, torch.stack(pictures), torch.stack(sounds)


def _searches(real: MeasuredSet, generated: MeasuredSet) -> tuple[NearestSearch, NearestSearch]:
    return (
        NearestSearch(torch.cat([real.pictures, generated.pictures])),
        NearestSearch(torch.cat([real.sounds, generated.sounds])),
    )


def _copies(
    picture: NearestSearch,
    sound: NearestSearch,
    real: MeasuredSet,
    generated: MeasuredSet,
    known: Literal["real", "training"],
    num_known: int,
    skipped: list[Skipped],
) -> Copies:
    num_real = len(real.names)
    return Copies(
        picture=judge_copies(picture, num_real, generated.names),
        sound=judge_copies(sound, num_real, generated.names),
        known=known,
        num_known=num_known,
        skipped=tuple(skipped),
    )
