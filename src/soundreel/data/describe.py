"""A prepared data set in a few lines, for people."""

from collections import Counter
from pathlib import Path

from soundreel.data.manifest import DatasetInfo, load_manifest


def describe(root: Path) -> dict[str, str]:
    """Return what a prepared data set holds, as names and values ready to be shown.

    Raises:
        DataError: if `root` holds no complete prepared data set.
    """
    info = DatasetInfo.load(root)
    records = load_manifest(root)
    frames = sorted(record.num_frames for record in records)
    splits = Counter(record.split for record in records)
    sources = Counter(split for _, split in {(record.group, record.split) for record in records})
    lines = {
        "data set": str(root),
        "made from": info.origin,
        "clips": f"{len(records)} of {frames[0]} to {frames[-1]} frames, "
        f"{float(sum(frames) / info.frame_rate):.1f} s in all",
        "frames": f"{info.width}x{info.height} at {info.frame_rate} per second",
        "sound": f"{info.sample_rate} Hz, {info.num_channels} channel"
        + ("s" if info.num_channels > 1 else ""),
        "splits": ", ".join(
            f"{split} {count} clips of {sources[split]} sources"
            for split, count in sorted(splits.items())
        ),
        "classes": _classes(info, Counter(record.label for record in records)),
    }
    for name, value in (
        ("files or pieces left out", info.counts.get("skipped", 0)),
        ("samples clipped to full scale", info.counts.get("clipped_samples", 0)),
    ):
        if value:
            lines[name] = f"{value:.0f}"
    return lines


def _classes(info: DatasetInfo, counts: Counter[int]) -> str:
    if not info.classes:
        return "none"
    return ", ".join(f"{name} {counts[index]}" for index, name in enumerate(info.classes))
