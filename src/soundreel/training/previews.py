"""Previews of clips while a run trains."""

from collections.abc import Sequence
from pathlib import Path

from soundreel.clip import Clip
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.media.encode import AAC_RATES


def save_preview(
    clips: list[Clip], folder: Path, samples_seen: int, titles: Sequence[str] = ()
) -> None:
    """Write clips as MP4 files (Matroska at a sample rate that MP4 lacks) and one contact sheet.

    Args:
        titles: of the clips, two in a row; without any, samples are numbered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for index, clip in enumerate(clips):
        suffix = ".mp4" if clip.sample_rate in AAC_RATES else ".mkv"
        clip.save(folder / f"{samples_seen:09d}-{index}{suffix}")
    columns = 2 if titles else 1
    titles = titles or [f"{samples_seen} training clips, sample {i}" for i in range(len(clips))]
    write_contact_sheet(
        folder / f"{samples_seen:09d}.png", clips, titles=titles, num_columns=columns
    )
