"""`soundreel sync FILE...`: how well the sound of any video fits its picture."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from soundreel.cli.main import write
from soundreel.clip import Clip
from soundreel.media.encode import complete_file
from soundreel.media.errors import MediaError
from soundreel.metrics.sync.score import Sync, measure_sync
from soundreel.metrics.sync.signals import SyncError
from soundreel.metrics.timeline import standalone, timeline_svg


@dataclass(frozen=True, kw_only=True)
class SyncArguments:
    """Measure how well the sound of each video fits its picture."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Video files with sound."""
    max_offset_s: float = 0.5
    """How far an offset is searched for, both ways."""
    max_duration_s: float = 60.0
    """Only so much of a long video is looked at, from its start."""
    plot: bool = False
    """Write NAME.sync.svg beside each file: what starts in the picture, and in the sound."""
    fix: bool = False
    """Write NAME.fixed.mp4 beside each file, its sound moved by the estimated offset."""


def sync(arguments: Annotated[SyncArguments, tyro.conf.arg(name="")]) -> int:
    """Measure how well the sound of each video fits its picture."""
    if not arguments.files:
        raise ValueError("give at least one video file")
    if arguments.max_offset_s <= 0 or arguments.max_duration_s <= 0:
        raise ValueError("--max-offset-s and --max-duration-s must be positive")
    failed = 0
    for path in arguments.files:
        try:
            _one(path, arguments)
        except (MediaError, SyncError) as error:
            failed += 1
            text = str(error)
            write(text if str(path) in text else f"{path}: {text}", error=True)
    return 2 if failed else 0


def _one(path: Path, arguments: SyncArguments) -> None:
    clip = Clip.load_beginning(path, arguments.max_duration_s)
    if clip.frames is None or clip.waveform is None:
        raise SyncError(f"{path}: has no {'picture' if clip.frames is None else 'sound'}")
    result = measure_sync(
        clip.frames, clip.frame_rate, clip.waveform, clip.sample_rate, arguments.max_offset_s
    )
    write(f"{path}: {result.in_words()}")
    if arguments.plot:
        with complete_file(path.with_suffix(".sync.svg")) as target:
            target.write_text(standalone(timeline_svg(clip, width=960, height=192)))
    if arguments.fix:
        _fix(path, result)


def _fix(path: Path, result: Sync) -> None:
    target = path.with_suffix(".fixed.mp4")
    if result.offset_s is None or abs(result.offset_s) < 0.01:
        write(f"{path}: nothing to correct")
        return
    clip = Clip.load(path)
    replace(clip, waveform=moved(clip, result.offset_s)).save(target)
    write(f"{target}: sound moved by {-result.offset_s:+.3f} s")


def moved(clip: Clip, late_s: float) -> np.ndarray:
    """The waveform taken `late_s` later, silence where there was none; as long as before."""
    assert clip.waveform is not None
    shift = round(late_s * clip.sample_rate)
    silence = np.zeros((clip.waveform.shape[0], min(abs(shift), clip.num_samples)), np.float32)
    if shift >= 0:
        return np.concatenate([clip.waveform[:, shift:], silence], axis=1)
    return np.concatenate([silence, clip.waveform[:, : clip.num_samples + shift]], axis=1)
