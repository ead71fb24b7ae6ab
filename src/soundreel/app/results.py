"""Files of a result: the clip, its sheet of frames over sound, its pictures as GIF."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soundreel.clip import Clip
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.media.encode import AAC_RATES
from soundreel.media.framing import Framing
from soundreel.media.gif import write_gif
from soundreel.media.probe import probe

MAX_GIF_FRAMES = 200
SHEET_S, SHEET_HEIGHT = 10, 128
"""Length of a film's beginning that its sheet shows, and pixels of its frames' height."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """Files of one action.

    Attributes:
        clip: to play; about: what made it, as Markdown; sheet: frames over the spectrogram of the
            sound; gif: the pictures alone, None if there are too many or none.
        has_picture: whether the clip is more than sound.
    """

    clip: Path
    about: str
    sheet: Path
    gif: Path | None = None
    has_picture: bool = True


def option_label(name: str) -> str:
    """Return what visitors read for the name of an option: "steps" for `num_steps`."""
    return name.replace("num_", "").replace("_", " ")


def target_in(folder: Path, sample_rate: int) -> Path:
    """Return the file of a clip: MP4 where it can hold the sound."""
    return folder / f"soundreel{'.mp4' if sample_rate in AAC_RATES else '.mkv'}"


def keep_clip(folder: Path, clip: Clip, about: str) -> Made:
    """Write a clip that lies in memory."""
    path = target_in(folder, clip.sample_rate)
    clip.save(path, comment=about)
    return _shown(path, clip, about, with_gif=True)


def keep_film(path: Path, about: str, *, is_own_picture: bool) -> Made:
    """Draw a film's beginning; nothing depends on its length."""
    info = probe(path)
    framing = None
    if info.has_video:
        height = min(SHEET_HEIGHT, info.height)
        framing = Framing(height=height, width=max(1, round(height * info.width / info.height)))
    beginning = Clip.load_beginning(path, SHEET_S, framing=framing)
    is_all = info.duration is not None and info.duration <= beginning.duration
    return _shown(path, beginning, about, with_gif=is_all and not is_own_picture)


def _shown(path: Path, clip: Clip, about: str, *, with_gif: bool) -> Made:
    """Write the sheet of a clip beside its file, and its pictures as GIF if they are few."""
    sheet, gif = path.with_name("contact-sheet.png"), None
    write_contact_sheet(sheet, [clip], titles=[about])
    if with_gif and clip.frames is not None and clip.num_frames <= MAX_GIF_FRAMES:
        gif = path.with_suffix(".gif")
        write_gif(gif, clip.frames, clip.frame_rate)
    return Made(clip=path, about=about, sheet=sheet, gif=gif, has_picture=clip.frames is not None)


def about_clip(asked: dict[str, Any], seed: int) -> str:
    """Return what made a clip, in words."""
    said = {name: asked[name] for name in ("label", "text") if name in asked}
    words = [f"class {said['label']}"] if "label" in said else []
    words += [f'"{said["text"]}"'] if "text" in said else []
    options = [f"{option_label(name)} {value}" for name, value in asked.items() if name not in said]
    return ", ".join([*words, f"seed {seed}", *options])
