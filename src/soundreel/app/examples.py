"""Files that the page offers beside its uploads, of kinds that the model can know."""

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from soundreel.data.scenes.clip import unseen_scene
from soundreel.data.scenes.render import KINDS
from soundreel.media.errors import MediaError
from soundreel.media.names import is_media_name
from soundreel.media.probe import probe
from soundreel.types import ClipSpec

SHOWN = 6
FIRST_KINDS = ("metronome", "bells", "lightning")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Files with pictures, and files with sound."""

    videos: tuple[Path, ...] = ()
    sounds: tuple[Path, ...] = ()

    def of(self, given: str) -> list[Path]:
        """Return the files that have "video" or "audio"."""
        return list(self.sounds if given == "audio" else self.videos)


def examples_in(folder: Path) -> Examples:
    """Return the first videos and sounds of a folder; what cannot be read is left out."""
    videos, sounds = [], []
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and is_media_name(path))
    for path in islice(files, SHOWN):
        try:
            info = probe(path)
        except MediaError:
            continue
        if info.has_video:
            videos.append(path)
        if info.has_audio:
            sounds.append(path)
    return Examples(videos=tuple(videos), sounds=tuple(sounds))


def rendered_examples(names: tuple[str, ...], spec: ClipSpec, folder: Path) -> Examples:
    """Render scenes that a model of rendered scenes has not seen; none for other models.

    Args:
        names: of the model's classes.
        spec: sizes of its clips.
        folder: where the files go; made if absent.
    """
    if not names or not set(names) <= set(KINDS):
        return Examples()
    shown = [kind for kind in FIRST_KINDS if kind in names] or list(names[:1])
    videos, sounds = [], []
    folder.mkdir(parents=True, exist_ok=True)
    for seed, kind in enumerate(shown):
        clip = unseen_scene(kind, spec, seed)
        videos.append(folder / f"{kind}.mp4")
        sounds.append(folder / f"{kind}.wav")
        clip.save(videos[-1])
        replace(clip, frames=None).save(sounds[-1])
    return Examples(videos=tuple(videos), sounds=tuple(sounds))
