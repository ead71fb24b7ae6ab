"""Settings that training runs of several systems share."""

from dataclasses import dataclass

from soundreel.errors import SoundreelError


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Windows of a prepared data set to train on.

    Attributes:
        split: part of the data set.
        stride: frames between the starts of windows; 1 takes every start frame.
        flip_probability: of mirroring a clip left to right, all its frames alike.
        cache: keep decoded clips in memory (up to 2 GiB).
        num_workers: processes that read ahead; 0 reads in the training process.
    """

    split: str = "train"
    stride: int = 1
    flip_probability: float = 0.0
    cache: bool = True
    num_workers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PreviewConfig:
    """Samples drawn during training.

    Attributes:
        count: clips per preview.
        num_steps: steps of the default sampler.
    """

    count: int = 4
    num_steps: int = 20

    def __post_init__(self) -> None:
        for name in ("count", "num_steps"):
            if getattr(self, name) < 1:
                raise SoundreelError(
                    f"preview.{name} must be at least 1, got {getattr(self, name)}"
                )
