"""`soundreel render`: labelled clips with exact event times, drawn and sounded from one list."""

import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from soundreel.cli.main import write
from soundreel.clip import Clip
from soundreel.data.scenes.render import KINDS, RenderedClip, RenderOptions, render_clips
from soundreel.errors import SoundreelError
from soundreel.files import is_own, locked, write_text
from soundreel.progress import progress_bar
from soundreel.request import check_seed

INDEX_NAME = "scenes.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RenderArguments:
    """Render scenes with known truth: KIND/NUMBER.mkv and its NUMBER.json in DEST.

    An interrupted call goes on where it stopped when it is repeated.
    """

    dest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")]
    """Folder to write to; made if absent."""
    count: int = 110
    """Clips in all; the kinds take turns."""
    seed: int = 0
    """Another seed is another set; the same one gives the same set."""
    size: int = 128
    """Height of the pictures in pixels."""
    width: int | None = None
    """Their width; None makes them square."""
    duration_s: float = 4.0
    """Length of each clip, to the nearest frame."""
    frame_rate: str = "25"
    """Frames per second, as 25 or 30000/1001."""
    sample_rate: int = 16_000
    """Sample rate of the sound in Hz."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Scenes to draw from."""
    camera_shake: float = 0.0
    """Amplitude of a shaking camera as a share of the height, up to 0.2."""
    distractors: int = 0
    """Silent things that float through each picture."""
    offscreen_sounds: int = 0
    """Sounds in each clip with nothing to see."""
    colour: Literal["full", "grey"] = "full"
    """Full, or grey."""
    thunder_delay_s: float | None = None
    """One delay for all thunder; None draws one per clip."""
    file_format: Literal["mkv", "mp4"] = "mkv"
    """mkv keeps every bit, mp4 plays everywhere."""
    workers: int = os.cpu_count() or 1
    """Processes; 0 renders in the main one."""

    def options(self) -> RenderOptions:
        rate = parse_frame_rate(self.frame_rate)
        return RenderOptions(
            num_frames=round(Fraction(self.duration_s) * rate),
            height=self.size,
            width=self.width or self.size,
            frame_rate=rate,
            sample_rate=self.sample_rate,
            kinds=self.kinds,
            camera_shake=self.camera_shake,
            num_distractors=self.distractors,
            num_offscreen_sounds=self.offscreen_sounds,
            colour=self.colour,
            thunder_delay_s=self.thunder_delay_s,
        )


def render(arguments: Annotated[RenderArguments, tyro.conf.arg(name="")]) -> int:
    """Render scenes with sound and exact event times."""
    options, dest = arguments.options(), arguments.dest
    if arguments.count < 1:
        raise SoundreelError(f"--count must be at least 1, got {arguments.count}")
    if arguments.workers < 0:
        raise SoundreelError(f"--workers cannot be negative, got {arguments.workers}")
    check_seed(arguments.seed)
    _check_dest(dest)
    with locked(dest):
        _write_index(dest, options, arguments.seed, arguments.file_format)
        missing = [
            index
            for index in range(arguments.count)
            if not _paths(dest, options, index, arguments.file_format)[1].is_file()
        ]
        clips = render_clips(options, arguments.seed, missing, arguments.workers)
        with progress_bar("rendering") as advance:
            for done, clip in enumerate(clips, start=1):
                _write(dest, clip, arguments.file_format)
                advance(done, len(missing))
    there = arguments.count - len(missing)
    write(f"{arguments.count} clips in {dest}, {there} of them were there")
    return 0


def parse_frame_rate(text: str) -> Fraction:
    """Return frames per second from text such as 25, 29.97 or 30000/1001.

    Raises:
        SoundreelError: it is no positive number.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise SoundreelError(f"--frame-rate is a number such as 25 or 30000/1001, got {text!r}")
    return rate


def _write(dest: Path, clip: RenderedClip, file_format: str) -> None:
    """Write the clip, then its truth: a clip without truth is unfinished and rendered again."""
    media_path, truth_path = _paths(dest, clip.options, clip.index, file_format)
    media_path.parent.mkdir(parents=True, exist_ok=True)
    options = clip.options
    Clip(clip.frames, clip.waveform, options.frame_rate, options.sample_rate).save(media_path)
    write_text(truth_path, json.dumps(clip.truth(), indent=1) + "\n")


def _paths(dest: Path, options: RenderOptions, index: int, file_format: str) -> tuple[Path, Path]:
    kind = options.kinds[index % len(options.kinds)]
    stem = dest / kind / f"{index:06d}"
    return stem.with_suffix(f".{file_format}"), stem.with_suffix(".json")


def _check_dest(dest: Path) -> None:
    """Refuse a folder of other files; what a killed call left of an index is none.

    Raises:
        SoundreelError: `dest` holds something else, or is no folder.
    """
    is_empty = not dest.exists() or (
        dest.is_dir() and all(is_own(path.name) for path in dest.iterdir())
    )
    if not is_empty and not (dest / INDEX_NAME).is_file():
        raise SoundreelError(
            f"{dest} exists and is no folder of rendered scenes; give an empty folder"
        )


def _write_index(dest: Path, options: RenderOptions, seed: int, file_format: str) -> None:
    """Record what the folder holds.

    Raises:
        SoundreelError: the folder was rendered with another seed or other options.
    """
    index: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "seed": seed,
        "file_format": file_format,
        "licence": "the licence of soundreel: these clips are made by its code alone",
        "labels": list(KINDS),
        "options": options.to_json(),
    }
    path = dest / INDEX_NAME
    if path.is_file():
        if not _holds_json(path, index):
            raise SoundreelError(
                f"{dest} holds clips of another seed or other options; give an empty folder"
            )
        return
    write_text(path, json.dumps(index, indent=1) + "\n")


def _holds_json(path: Path, value: Any) -> bool:
    try:
        return json.loads(path.read_text()) == value
    except ValueError:
        return False
