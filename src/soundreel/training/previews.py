"""Previews of clips while a run trains."""

from pathlib import Path

from soundreel.clip import Clip
from soundreel.media.contact_sheet import write_contact_sheet
from soundreel.media.encode import AAC_RATES


def save_preview(clips: list[Clip], folder: Path, samples_seen: int) -> None:
    """Write clips as MP4 files (Matroska at a sample rate that MP4 lacks) and one contact sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, clip in enumerate(clips):
        suffix = ".mp4" if clip.sample_rate in AAC_RATES else ".mkv"
        clip.save(folder / f"{samples_seen:09d}-{index}{suffix}")
    titles = [f"{samples_seen} training clips, sample {index}" for index in range(len(clips))]
    write_contact_sheet(folder / f"{samples_seen:09d}.png", clips, titles=titles)
