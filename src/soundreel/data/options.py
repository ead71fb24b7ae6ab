"""Options of `soundreel prepare`, and recipes for public data sets."""

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from soundreel.errors import SoundreelError
from soundreel.types import ClipSpec


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of the preparation of videos as clips of a data set."""

    height: int = 64
    """Height of the prepared frames in pixels."""
    width: int = 64
    """Width of the prepared frames in pixels."""
    frame_rate: str = "10"
    """Frames per second of the prepared clips: a number or a fraction such as 30000/1001."""
    sample_rate: int = 16_000
    """Samples per second of the prepared sound."""
    num_channels: int = 1
    """Sound channels: 1 mixes to mono, 2 to stereo."""
    crop: Literal["center", "letterbox", "box"] = "center"
    """center: cut the largest centred part of the wanted shape; letterbox: keep everything and add
    black bars; box: cut the part given by --box."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Left, top, width and height in pixels of the source picture as shown (upright, its pixels
    square), for --crop box."""

    video_track: int | None = None
    """Number of the video track in files that have several, from 1; by default the one that the
    file marks as its default, else the first."""
    audio_track: int | None = None
    """Likewise of the audio track."""

    clip_duration_s: float = 10.0
    """Longer videos are cut into consecutive clips of this length; windows never span two clips."""
    min_duration_s: float = 1.6
    """Leave out clips shorter than this (1.6 s = 16 frames at 10 frames per second)."""
    min_frame_rate: float = 0.0
    """Leave out videos with fewer frames per second than this."""
    min_size: int = 0
    """Leave out videos whose shorter side has fewer pixels than this."""
    silence_db: float = -70.0
    """Leave out clips whose loudness (RMS, dB below full scale) is lower than this."""
    scene_cuts: Literal["keep", "split"] = "keep"
    """split: find cuts and let no clip span one."""

    labels: Literal["none", "folder", "pattern", "list"] = "none"
    """Source of a video's class: the name of its folder, the first group of
    --label-pattern, or the column `label` of the list."""
    label_pattern: str = ""
    """Regular expression searched in the path of a video, for --labels pattern."""
    group_pattern: str = ""
    """Regular expression searched in the path of a video; videos for which its groups are equal are
    the same source and stay in the same split (several cameras on one scene, for example)."""
    near_copies: float = 0.0
    """Keep videos that look alike in one split too (equal files always are): the largest share of
    the bits of their perceptual hashes that may differ, such as 0.1. 0 does not look for them."""
    test: float = 0.0
    """Sources held out as the split `test`: a share below 1, or a number from 1 on."""
    valid: float = 0.0
    """Likewise for the split `valid`, out of what `test` leaves."""
    subset: str = ""
    """Use only part of the sources, drawn by --seed: a percentage such as 10%, or a number."""
    best: int = 0
    """Use only so many sources: those of the highest frame rate, then of the largest picture;
    0 uses all. DEST/chosen.csv lists them."""
    seed: int = 0
    """Seed of the sources held out and of the subset."""
    shard_size_mb: int = 256
    """A new shard is begun when one has reached this size."""

    def __post_init__(self) -> None:
        try:
            rate = Fraction(self.frame_rate)
        except (ValueError, ZeroDivisionError):
            raise SoundreelError(
                f"frame_rate must be a number or a fraction such as 30000/1001, "
                f"got {self.frame_rate!r}"
            ) from None
        ClipSpec(  # checks that sizes and rates are positive
            height=self.height,
            width=self.width,
            frame_rate=rate,
            sample_rate=self.sample_rate,
            num_channels=self.num_channels,
        )
        if self.num_channels > 2:
            raise SoundreelError(f"num_channels must be 1 or 2, got {self.num_channels}")
        for name in ("video_track", "audio_track"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise SoundreelError(f"{name} is numbered from 1, got {number}")
        if self.clip_num_frames < 1 or self.clip_duration_s < self.min_duration_s:
            raise SoundreelError(
                f"clip_duration_s must be at least one frame and min_duration_s "
                f"({self.min_duration_s}), got {self.clip_duration_s}"
            )
        if self.crop == "box" and min(*self.box[:2], self.box[2] - 1, self.box[3] - 1) < 0:
            raise SoundreelError(
                f"crop box needs box = LEFT TOP WIDTH HEIGHT with positive sizes, got {self.box}"
            )
        if self.labels == "pattern" and not self.label_pattern:
            raise SoundreelError(
                "labels pattern needs label_pattern, a regular expression with a group"
            )
        for name in ("test", "valid"):
            value = getattr(self, name)
            if value < 0 or (value > 1 and value != int(value)):
                raise SoundreelError(
                    f"{name} must be a share below 1 or a whole number, got {value}"
                )
        share = self.subset.removesuffix("%")
        is_share = self.subset.endswith("%")
        if self.subset and not (
            re.fullmatch(r"\d+(\.\d+)?" if is_share else r"\d+", share)
            and 0 < float(share) <= (100 if is_share else math.inf)
        ):
            raise SoundreelError(
                "subset must be a percentage such as 10% or a number of sources, got "
                f"{self.subset!r}"
            )
        if self.best < 0:
            raise SoundreelError(f"best must not be negative, got {self.best}")
        if not 0 <= self.near_copies < 0.5:
            raise SoundreelError(f"near_copies is a share below 0.5, got {self.near_copies}")
        if self.shard_size_mb < 1:
            raise SoundreelError(f"shard_size_mb must be at least 1, got {self.shard_size_mb}")

    @property
    def rate(self) -> Fraction:
        """Return `frame_rate` as an exact number."""
        return Fraction(self.frame_rate)

    @property
    def clip_num_frames(self) -> int:
        """Return frames of a full clip: as many as fit in `clip_duration_s`."""
        return int(Fraction(str(self.clip_duration_s)) * self.rate)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Options that a public data set wants, and one line that says what they do."""

    summary: str
    options: PrepareOptions


LANDSCAPE = PrepareOptions(labels="folder")
"""Landscape (Lee et al. 2022): about 1,000 clips of 10 s in 9 classes, a folder a class; 64x64,
10 frames per second, 16 kHz, as MM-Diffusion trains on it."""

AIST = PrepareOptions(
    labels="pattern",
    label_pattern=r"_m([A-Z]{2}\d)_",
    group_pattern=r"(g[A-Z]{2}_s[A-Z]{2})_c[^_]*_(d\d+_m[A-Z]{2}\d_ch\d+)",
)
"""AIST++ (Li et al. 2021): dances filmed by nine cameras, cut to the centre square; the class is
one of 60 pieces of music, and all cameras on one dance are one source."""

AUDIOSET = PrepareOptions(silence_db=-60.0, best=20_000)
"""AudioSet (Gemmeke et al. 2017) as MM-Diffusion trains on it: the 20,000 videos of the highest
frame rate, then of the largest picture. Its labels are captions. Ruan et al. 2023, supplement,
section 3.1; -60 dB is ours."""

RECIPES = {
    "plain": Recipe(summary="No classes; every option as given.", options=PrepareOptions()),
    "landscape": Recipe(
        summary="Landscape: a folder a class, as the data set comes.", options=LANDSCAPE
    ),
    "aist": Recipe(
        summary="AIST++: class is the music, all cameras on a dance in one split.", options=AIST
    ),
    "audioset": Recipe(
        summary="A list of AudioSet segments: its 20,000 best videos, labels as captions.",
        options=AUDIOSET,
    ),
}
"""Starting points for the options, by name; systems add those of their own papers."""
