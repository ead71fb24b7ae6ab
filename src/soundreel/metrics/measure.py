"""Everything the evaluation takes from one set of clips, decoded picture by picture."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from soundreel.errors import SoundreelError
from soundreel.media.resample import resample_waveform
from soundreel.metrics.extractors import CPU, Extractor, PreparesFrames
from soundreel.metrics.memorisation import describe_picture, describe_sound
from soundreel.metrics.streams import ClipStream, Watched, watch
from soundreel.metrics.sync.score import Sync, sync_of_curves
from soundreel.metrics.sync.signals import (
    SyncError,
    check_measurable,
    motion_of_blocks,
    sound_curves,
)

logger = logging.getLogger(__name__)


@runtime_checkable
class ClipItem(Protocol):
    """A clip that can be opened when its turn comes."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str: ...

    def open(self, duration_s: float) -> ClipStream:
        """Open its first `duration_s` seconds, or all of it where it is shorter."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A clip left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class MeasuredSet:
    """Measurements of one set of clips; lists and rows belong to `names` in order.

    Attributes:
        features: rows of each extractor, by its name (several a clip where the extractor says so:
            `rows_per_clip` counts them).
        sync: None for clips whose sync cannot be measured.
    """

    names: list[str]
    labels: list[str]
    features: dict[str, Float[Tensor, "_row _dim"]]
    rows_per_clip: dict[str, list[int]]
    sync: list[Sync | None]
    pictures: Float[Tensor, "clip _picture"]
    sounds: Float[Tensor, "clip _sound"]
    skipped: list[Skipped]

    def features_of(self, extractor: str, label: str | None = None) -> Float[Tensor, "_row _dim"]:
        """Return the feature rows of all clips, or of those of one class."""
        rows = self.features[extractor]
        if label is None:
            return rows
        counts = torch.tensor(self.rows_per_clip[extractor])
        wanted = torch.tensor([own == label for own in self.labels])
        return rows[wanted.repeat_interleave(counts)]


def measure_set(
    items: Sequence[ClipItem],
    extractors: Sequence[Extractor],
    duration_s: float,
    frame_rate: Fraction,
    advance: Callable[[int, int], None],
    device: torch.device = CPU,
) -> MeasuredSet:
    """Load and describe every clip; one that is unreadable, too short or mute is listed.

    Args:
        frame_rate: of the extractors' frames; sync is measured at the clip's own.
        advance: told (done, total) after each clip.
        device: where the extractors lie.

    Raises:
        SoundreelError: no clip at all could be measured.
    """
    names: list[str] = []
    labels: list[str] = []
    features: dict[str, list[Tensor]] = {e.name: [] for e in extractors}
    sync: list[Sync | None] = []
    pictures: list[Tensor] = []
    sounds: list[Tensor] = []

    seen_by = {e.name: _reducing(e) for e in extractors if e.modality == "video"}

    def measure(item: ClipItem) -> None:
        clip = checked(watch(item.open(duration_s), frame_rate, seen_by), duration_s)
        rows = {e.name: _features(e, clip, device) for e in extractors}
        names.append(item.name)
        labels.append(item.label)
        sync.append(_sync(clip))
        pictures.append(describe_picture(clip.thumbnails))
        sounds.append(describe_sound(clip.waveform))
        for name, found in rows.items():
            features[name].append(found)

    skipped = for_each_clip(items, measure, advance)
    return MeasuredSet(
        names=names,
        labels=labels,
        features={name: torch.cat(rows) for name, rows in features.items()},
        rows_per_clip={name: [len(r) for r in rows] for name, rows in features.items()},
        sync=sync,
        pictures=torch.stack(pictures),
        sounds=torch.stack(sounds),
        skipped=skipped,
    )


def for_each_clip(
    items: Sequence[ClipItem],
    use: Callable[[ClipItem], None],
    advance: Callable[[int, int], None],
) -> list[Skipped]:
    """Call `use` with every clip; those for which it fails are logged and listed.

    Raises:
        SoundreelError: it failed for all.
    """
    skipped: list[Skipped] = []
    for done, item in enumerate(items, start=1):
        try:
            use(item)
        except SoundreelError as error:
            skipped.append(Skipped(name=item.name, reason=" ".join(str(error).split())))
            logger.warning("left out %s: %s", item.name, skipped[-1].reason)
        advance(done, len(items))
    if len(skipped) == len(items):
        why = skipped[0].reason if skipped else "there are none"
        raise SoundreelError(f"none of {len(items)} clips could be measured; the first: {why}")
    return skipped


def checked(clip: Watched, duration_s: float) -> Watched:
    """Return the clip if it lasts long enough.

    Raises:
        SoundreelError: it does not.
    """
    # A frame may be missing to the wanted length where rates do not divide.
    if clip.duration_s < duration_s - 1.01 / float(clip.frame_rate):
        raise SoundreelError(f"lasts {clip.duration_s:.2f} s, {duration_s:g} s are needed")
    return clip


def _reducing(extractor: Extractor) -> Callable[[Tensor], Tensor]:
    """Return what a picture is to be kept as for an extractor; as it is, where it does not say."""
    return extractor.prepare if isinstance(extractor, PreparesFrames) else lambda image: image


def _features(extractor: Extractor, clip: Watched, device: torch.device) -> Tensor:
    if extractor.modality == "video":
        return extractor(clip.frames[extractor.name][None].to(device)).cpu()
    mono, rate = clip.waveform, extractor.sample_rate
    if rate != clip.sample_rate:
        count = mono.shape[1] * rate // clip.sample_rate
        mono = resample_waveform(
            mono, native_rate=clip.sample_rate, sample_rate=rate, num_samples=count
        )
    return extractor(torch.from_numpy(mono).to(device)).cpu()


def _sync(clip: Watched) -> Sync | None:
    num_samples = clip.waveform.shape[1]
    try:
        check_measurable(clip.num_frames, clip.frame_rate, num_samples, clip.sample_rate)
    except SyncError:
        return None
    assert clip.blocks is not None
    sound = sound_curves(clip.waveform, clip.sample_rate)
    return sync_of_curves(motion_of_blocks(clip.blocks), sound, clip.frame_rate)
