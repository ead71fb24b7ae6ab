"""A study's folder from folders of clips: every clip cut and encoded alike, under a random name."""

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from soundreel.clip import Clip
from soundreel.errors import SoundreelError
from soundreel.files import writing_folder
from soundreel.media.framing import Framing
from soundreel.study.design import ANSWER_FILE, CLIP_FOLDER, Study, StudyClip, clip_path, save_study
from soundreel.study.sources import ClipFormat, SourceClip, Usable
from soundreel.study.store import create_store

MIN_SIDE = 128
"""Smaller pictures are enlarged by a whole factor, so that the format keeps all of their colour."""
NOISE_SIDE = 32
"""Rows and columns of the noise in attention checks: it shows nothing, and makes small files."""


def write_study(
    folder: Path,
    study: Callable[[tuple[StudyClip, ...]], Study],
    drawn: Mapping[str, Sequence[Usable]],
    chosen: ClipFormat,
    num_noise: int,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Study:
    """Encode the clips and write the study; the folder appears only when it is complete.

    Args:
        study: makes the study of its clips.
        num_noise: clips of pure noise for attention checks.
        advance: told how many clips are done, of how many.

    Raises:
        SoundreelError: the folder is there already.
        MediaError: a clip is damaged beyond its header, or cannot be written.
    """
    todo = [(system, clip.source) for system, clips in drawn.items() for clip in clips]
    total = len(todo) + num_noise
    with _complete_folder(folder) as target:
        (target / CLIP_FOLDER).mkdir()
        done: list[StudyClip] = []
        for system, source in todo:
            done.append(_write_clip(target, system, source.name, _load(source, chosen)))
            advance(len(done), total)
        for index in range(num_noise):
            noise = _noise(chosen, np.random.default_rng(secrets.randbits(64)))
            done.append(_write_clip(target, "", f"noise {index + 1}", noise))
            advance(len(done), total)
        made = study(tuple(done))
        save_study(target, made)
        create_store(target / ANSWER_FILE)
    return made


def check_folder(folder: Path) -> None:
    """Raise `SoundreelError` if there is something already."""
    if folder.exists():
        raise SoundreelError(f"{folder} is there already; a study gets a folder of its own")


@contextmanager
def _complete_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill; it gets its own name when the block ends well, else it vanishes."""
    check_folder(folder)
    with writing_folder(folder) as temporary:
        yield temporary


def _load(source: SourceClip, chosen: ClipFormat) -> Clip:
    """Load the first seconds of a clip in the study's format, its pictures whole."""
    clip = Clip.load(
        source.open(),
        duration=chosen.duration,
        frame_rate=chosen.frame_rate,
        sample_rate=chosen.sample_rate,
        num_channels=chosen.num_channels,
        framing=Framing(kind="letterbox", height=chosen.height, width=chosen.width),
    )
    assert clip.waveform is not None
    # Sound beyond full scale would be clipped, and named in the log.
    return Clip(clip.frames, np.clip(clip.waveform, -1, 1), clip.frame_rate, clip.sample_rate)


def _noise(chosen: ClipFormat, rng: np.random.Generator) -> Clip:
    """Make pure noise, which has a number on the protocol's scale: picture, and quiet sound."""
    num_frames = round(chosen.duration * chosen.frame_rate)
    coarse = rng.integers(0, 256, (num_frames, NOISE_SIDE, NOISE_SIDE, 3), dtype=np.uint8)
    rows = np.arange(chosen.height) * NOISE_SIDE // chosen.height
    columns = np.arange(chosen.width) * NOISE_SIDE // chosen.width
    num_samples = int(chosen.duration * chosen.sample_rate)
    waveform = rng.normal(0, 0.05, (chosen.num_channels, num_samples)).astype(np.float32)
    return Clip(coarse[:, rows][:, :, columns], waveform, chosen.frame_rate, chosen.sample_rate)


def _write_clip(folder: Path, system: str, name: str, clip: Clip) -> StudyClip:
    clip_id = secrets.token_hex(8)
    path = clip_path(folder, clip_id)
    side = MIN_SIDE if clip.frames is None else min(clip.frames.shape[1:3])
    clip.save(path, enlarge=-(-MIN_SIDE // side))
    os.utime(path, (0, 0))  # the time would tell in which order the systems were encoded
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return StudyClip(id=clip_id, system=system, name=name, sha256=digest)
