"""`soundreel sync FILE...`: how well the sound of any video fits its picture."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import tyro

from soundreel.cli.main import write
from soundreel.errors import SoundreelError
from soundreel.media.container import Tracks
from soundreel.media.encode import complete_file
from soundreel.media.remux import move_sound, moved_name
from soundreel.metrics.streams import curves_of, open_stream
from soundreel.metrics.sync.score import IN_SYNC_S, Sync, sync_of_curves
from soundreel.metrics.timeline import curves_svg, standalone


@dataclass(frozen=True, kw_only=True)
class SyncArguments:
    """Measure how well the sound of each video fits its picture."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """Video files with sound."""
    max_offset_s: float = 0.5
    """Largest offset that is searched for, both ways."""
    max_duration_s: float = 60.0
    """Only so much of a long video is looked at, from its start."""
    video_track: int | None = None
    """Number of the video track, from 1; by default the one marked as default, else the first."""
    audio_track: int | None = None
    """Number of the audio track, likewise. It is the one that --fix moves."""
    plot: bool = False
    """Write NAME.sync.svg beside each file: what starts in the picture, and in the sound."""
    fix: bool = False
    """Write NAME.fixed beside each file, of the same kind: its sound moved by the estimated offset,
    all else copied. Files for whose offset there is no evidence are left alone."""
    force: bool = False
    """With --fix: move the sound by the estimate even without evidence."""


def sync(arguments: Annotated[SyncArguments, tyro.conf.arg(name="")]) -> int:
    """Measure how well the sound of each video fits its picture."""
    if not arguments.files:
        raise SoundreelError("give at least one video file")
    if arguments.max_offset_s <= 0 or arguments.max_duration_s <= 0:
        raise SoundreelError("--max-offset-s and --max-duration-s must be positive")
    if arguments.force and not arguments.fix:
        raise SoundreelError("--force changes what --fix does; give both")
    failed = 0
    for path in arguments.files:
        try:
            _one(path, arguments)
        except (SoundreelError, OSError) as error:
            failed += 1
            text = " ".join(str(error).split())
            write(text if str(path) in text else f"{path}: {text}", error=True)
    return 2 if failed else 0


def _one(path: Path, arguments: SyncArguments) -> None:
    tracks = Tracks(video=arguments.video_track, audio=arguments.audio_track)
    curves = curves_of(open_stream(path, arguments.max_duration_s, tracks))
    result = sync_of_curves(curves.motion, curves.sound, curves.frame_rate, arguments.max_offset_s)
    write(f"{path}: {result.in_words()}")
    if arguments.plot:
        drawing = path.with_suffix(".sync.svg")
        if drawing.exists():
            raise FileExistsError(f"{drawing} is there already; move it away")
        with complete_file(drawing) as target:
            target.write_text(standalone(curves_svg(curves, width=960, height=192)))
    if arguments.fix:
        _fix(path, result, tracks, arguments.force)


def _fix(path: Path, result: Sync, tracks: Tracks, is_forced: bool) -> None:
    if result.offset_s is None or not (result.has_evidence or is_forced):
        several = result.is_ambiguous and result.offset_s is not None
        why = "several offsets fit" if several else "no evidence of an offset"
        write(f"{path}: sound not moved: {why}")
        return
    if abs(result.offset_s) < IN_SYNC_S and not is_forced:
        write(f"{path}: nothing to correct")
        return
    target = moved_name(path)
    seconds = Fraction(-result.offset_s).limit_denominator(100_000)
    left_out = move_sound(path, target, seconds, tracks)
    note = f"; left out: {', '.join(left_out)}" if left_out else ""
    write(f"{target}: sound moved by {-result.offset_s:+.3f} s, all else copied{note}")
