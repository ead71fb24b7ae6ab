"""Prepared clips as training windows.

A window is `spec.num_frames` consecutive frames and the samples of exactly that stretch of time:
frames [a, a + n) own the samples [frame_to_sample(a), frame_to_sample(a) + spec.num_samples). It
never leaves its clip, so nothing is repeated or padded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import Dataset

from soundreel.config import DataConfig
from soundreel.data.decoded import DecodedClips
from soundreel.data.manifest import DataError, DatasetInfo
from soundreel.data.records import Records
from soundreel.errors import SoundreelError
from soundreel.types import AV, ClipSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One window.

    Attributes:
        av: video `frame channel height width`, audio `channel sample`, float32 in [-1, 1].
        label: index of its class, -1 for none.
        key, start_frame: the clip and where in it the window begins.
    """

    av: AV
    label: int
    key: str
    start_frame: int


class PreparedDataset(Dataset):
    """All windows of one split of a prepared data set, in the order of its manifest.

    `dataset[i]` is the i-th window as it is; `dataset.draw(i, generator)` also draws what is random
    about it.

    Args:
        root: folder made by `soundreel prepare`.
        split: "train", "valid", "test", or "" for all.
        spec: length of the windows; sizes and rates must be those of the data set.
        stride: distance in frames between the starts of windows (1: every start frame);
            "random": one item a clip, whose start is drawn anew each time.
        flip_probability: of mirroring a drawn window left to right, all its frames alike.
        cache: keep decoded clips in memory, up to `cache_bytes`.
        sound_only: leave the pictures out.

    Raises:
        DataError: if the folder is not a complete data set, the split is empty, or no clip is as
            long as a window.
        SoundreelError: if the spec does not fit the data set, or a setting is out of range.
    """

    def __init__(
        self,
        root: Path,
        *,
        spec: ClipSpec,
        split: str = "train",
        stride: int | Literal["random"] = 1,
        flip_probability: float = 0.0,
        cache: bool = False,
        cache_bytes: int = 2 * 2**30,
        sound_only: bool = False,
    ) -> None:
        self.info = DatasetInfo.load(root)
        self.spec = spec
        _check_spec(spec, self.info, root)
        if not 0 <= flip_probability <= 1:
            raise SoundreelError(f"flip_probability must be in [0, 1], got {flip_probability}")
        self._flip_probability = flip_probability
        self._stride = stride
        self.records = Records(root, split, self._num_items)
        if not self.records.longest:
            splits = [name[6:] for name in self.info.counts if name.startswith("split/")]
            raise DataError(f"{root} has no clips in split {split!r}; it has {splits}")
        if not self.records:
            raise DataError(
                f"no clip of split {split!r} in {root} has {spec.num_frames} frames; the longest "
                f"has {self.records.longest}; use shorter windows"
            )
        self._clips = DecodedClips(
            root,
            self.records,
            self.info,
            cache_bytes=cache_bytes if cache else 0,
            sound_only=sound_only,
        )

    def _num_starts(self, num_frames: int) -> int:
        return self.spec.num_windows(num_frames, 1 if self._stride == "random" else self._stride)

    def _num_items(self, num_frames: int) -> int:
        num_starts = self._num_starts(num_frames)
        return min(num_starts, 1) if self._stride == "random" else num_starts

    def __len__(self) -> int:
        return self.records.num_items

    def __getitem__(self, index: int) -> Sample:
        return self._window(*self._locate(index), flip=False)

    def draw(self, index: int, generator: torch.Generator) -> Sample:
        """Return the window with its random part: first the start (if random), then the flip."""
        clip, start_frame = self._locate(index)
        if self._stride == "random":
            num_starts = self._num_starts(self.records[clip].num_frames)
            start_frame = int(torch.randint(num_starts, (), generator=generator))
        flip = float(torch.rand((), generator=generator)) < self._flip_probability
        return self._window(clip, start_frame, flip=flip)

    def _locate(self, index: int) -> tuple[int, int]:
        """Return position of the clip among the records, and first frame of the window."""
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of a data set of {len(self)} windows")
        clip, start = self.records.locate(index)
        return clip, 0 if self._stride == "random" else start * self._stride

    def _window(self, clip: int, start_frame: int, *, flip: bool) -> Sample:
        record = self.records[clip]
        end_frame = start_frame + self.spec.num_frames
        start_sample = self.spec.frame_to_sample(start_frame)
        end_sample = start_sample + self.spec.num_samples
        av = self._clips.cut(clip, (start_frame, end_frame), (start_sample, end_sample))
        if flip and av.video is not None:
            av = av.replace("video", av.video.flip(-1))
        return Sample(av=av, label=record.label, key=record.key, start_frame=start_frame)


def training_windows(
    root: Path,
    spec: ClipSpec,
    settings: DataConfig,
    *,
    split: str | None = None,
    sound_only: bool = False,
) -> PreparedDataset:
    """Return the windows that a run trains on, as its settings choose them.

    Args:
        split: another part of the data set than that of the settings.
        sound_only: leave the pictures out.

    Raises:
        DataError, SoundreelError: see `PreparedDataset`.
    """
    return PreparedDataset(
        root,
        spec=spec,
        split=settings.split if split is None else split,
        stride=settings.stride,
        flip_probability=settings.flip_probability,
        cache=settings.cache,
        sound_only=sound_only,
    )


def _check_spec(spec: ClipSpec, info: DatasetInfo, root: Path) -> None:
    held = info.spec(spec.num_frames)
    wrong = [
        f"{name} {getattr(spec, name)} (the data set has {getattr(held, name)})"
        for name in ("height", "width", "frame_rate", "sample_rate", "num_channels")
        if getattr(spec, name) != getattr(held, name)
    ]
    if wrong:
        raise SoundreelError(
            f"{root} does not fit what the model needs: {', '.join(wrong)}; prepare it with these"
        )
