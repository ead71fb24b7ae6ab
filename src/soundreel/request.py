"""Arguments of `generate` that all pipelines share, checked before any work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.types import ClipSpec

MAX_SEED = 2**63 - 1


def check_counts(count: int, seed: int, batch_size: int) -> None:
    """Raise `SoundreelError` unless count, seed and batch size can be used."""
    if count < 1 or batch_size < 1:
        raise SoundreelError(f"count and batch_size start at 1, got {count} and {batch_size}")
    if not 0 <= seed <= MAX_SEED - count:
        raise SoundreelError(f"seed is a whole number from 0 to 2**63 - 1 - count, got {seed}")


def check_seed(seed: int) -> None:
    """Raise `SoundreelError` unless random numbers can be drawn from this seed."""
    if not 0 <= seed <= MAX_SEED:
        raise SoundreelError(f"seed is a whole number from 0 to 2**63 - 1, got {seed}")


@dataclass(frozen=True)
class Given:
    """The modality that is kept, and the clip that it comes from."""

    modality: Literal["video", "audio"]
    clip: Clip


def read_given(
    video: Clip | str | Path | None, audio: Clip | str | Path | None, spec: ClipSpec
) -> Given | None:
    """Return what `video=` or `audio=` gives; a path is read at the model's rates.

    Raises:
        SoundreelError: both are given, or the clip lacks the modality.
        MediaError: a file cannot be read, or is shorter than the model's clips.
    """
    if video is not None and audio is not None:
        raise SoundreelError(
            "video and audio are both given, nothing is left to make; leave one out"
        )
    source = video if video is not None else audio
    if source is None:
        return None
    if not isinstance(source, Clip):
        source = Clip.load(
            source,
            duration=spec.duration,
            frame_rate=spec.frame_rate,
            sample_rate=spec.sample_rate,
        )
    modality = "audio" if video is None else "video"
    if (source.waveform if modality == "audio" else source.frames) is None:
        raise SoundreelError(f"the clip given as {modality} has none")
    return Given(modality, source)


def find_label(label: int | str | None, class_names: tuple[str, ...]) -> int | None:
    """Return the number of a class that is given by its number or its name.

    Raises:
        SoundreelError: the model has no such class, or none at all.
    """
    if label is None:
        return None
    if not class_names:
        raise SoundreelError("this model has no classes; leave the label out")
    if isinstance(label, str):
        if label in class_names:
            return class_names.index(label)
        if not label.isdecimal():
            raise SoundreelError(
                f"class {label!r} is none of this model's: {', '.join(class_names)}"
            )
        label = int(label)
    if label not in range(len(class_names)):
        raise SoundreelError(f"label {label} is not among this model's {len(class_names)} classes")
    return label
