"""`soundreel render`: labelled clips with exact event times, drawn and sounded from one list."""

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from soundreel.cli.main import write
from soundreel.cli.progress import progress_bar
from soundreel.clip import Clip
from soundreel.data.scenes.render import KINDS, RenderedClip, RenderOptions, render_clips
from soundreel.media.encode import complete_file

INDEX_NAME = "scenes.json"
FORMAT_VERSION = 1


def render(
    dest: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DEST")],
    /,
    count: int = 110,
    seed: int = 0,
    size: int = 128,
    width: int | None = None,
    duration_s: float = 4.0,
    frame_rate: Fraction = Fraction(25),
    sample_rate: int = 16_000,
    kinds: tuple[str, ...] = tuple(KINDS),
    camera_shake: float = 0.0,
    distractors: int = 0,
    offscreen_sounds: int = 0,
    colour: Literal["full", "grey"] = "full",
    thunder_delay_s: float | None = None,
    file_format: Literal["mkv", "mp4"] = "mkv",
    workers: int | None = None,
) -> None:
    """Render scenes with known truth: KIND/NUMBER.mkv and its NUMBER.json in DEST.

    An interrupted call goes on where it stopped when it is repeated.

    Args:
        dest: folder to write to; made if absent.
        count: clips in all; the kinds take turns.
        seed: another seed is another set; the same one gives the same set.
        size: height of the pictures in pixels.
        width: their width; None makes them square.
        duration_s: length of each clip, to the nearest frame.
        frame_rate: frames per second, as 25 or 30000/1001.
        sample_rate: of the sound, in Hz.
        kinds: which scenes to draw from.
        camera_shake: amplitude of a shaking camera as a share of the height, up to 0.2.
        distractors: silent things that float through each picture.
        offscreen_sounds: sounds in each clip with nothing to see.
        colour: full, or grey.
        thunder_delay_s: one delay for all thunder; None draws one per clip.
        file_format: mkv keeps every bit, mp4 plays everywhere.
        workers: processes; None takes one per core.
    """
    options = RenderOptions(
        num_frames=round(Fraction(duration_s) * frame_rate),
        height=size,
        width=width or size,
        frame_rate=frame_rate,
        sample_rate=sample_rate,
        kinds=kinds,
        camera_shake=camera_shake,
        num_distractors=distractors,
        num_offscreen_sounds=offscreen_sounds,
        colour=colour,
        thunder_delay_s=thunder_delay_s,
    )
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    _write_index(dest, options, seed, file_format)
    missing = [k for k in range(count) if not _paths(dest, options, k, file_format)[1].is_file()]
    clips = render_clips(
        options, seed, missing, (os.cpu_count() or 1) if workers is None else workers
    )
    with progress_bar("rendering") as advance:
        for done, clip in enumerate(clips, start=1):
            _write(dest, clip, file_format)
            advance(done, len(missing))
    write(f"{count} clips in {dest}, {count - len(missing)} of them were there")


def _write(dest: Path, clip: RenderedClip, file_format: str) -> None:
    """The clip, then its truth: a clip without truth is unfinished and rendered again."""
    media_path, truth_path = _paths(dest, clip.options, clip.index, file_format)
    media_path.parent.mkdir(parents=True, exist_ok=True)
    options = clip.options
    Clip(clip.frames, clip.waveform, options.frame_rate, options.sample_rate).save(media_path)
    with complete_file(truth_path) as path:
        path.write_text(json.dumps(clip.truth(), indent=1) + "\n")


def _paths(dest: Path, options: RenderOptions, index: int, file_format: str) -> tuple[Path, Path]:
    kind = options.kinds[index % len(options.kinds)]
    stem = dest / kind / f"{index:06d}"
    return stem.with_suffix(f".{file_format}"), stem.with_suffix(".json")


def _write_index(dest: Path, options: RenderOptions, seed: int, file_format: str) -> None:
    """Record what the folder holds; refuse one that holds something else.

    Raises:
        ValueError: the folder was rendered with another seed or other options, or holds other
        files.
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
        if json.loads(path.read_text()) != index:
            raise ValueError(
                f"{dest} holds clips of another seed or other options; give an empty folder"
            )
        return
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ValueError(f"{dest} exists and is no folder of rendered scenes; give an empty folder")
    dest.mkdir(parents=True, exist_ok=True)
    with complete_file(path) as temporary:
        temporary.write_text(json.dumps(index, indent=1) + "\n")
