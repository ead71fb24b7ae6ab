"""A prepared data set in a few lines, for people."""

from collections import Counter
from pathlib import Path

from soundreel.data.manifest import DatasetInfo, iter_manifest


def describe(root: Path) -> dict[str, str]:
    """Return what a prepared data set holds, as names and values ready to be shown.

    Raises:
        DataError: if `root` holds no complete prepared data set.
    """
    info = DatasetInfo.load(root)
    frames, splits, labels = Counter[int](), Counter[str](), Counter[int]()
    groups = set()
    for record in iter_manifest(root):
        frames[record.num_frames] += 1
        splits[record.split] += 1
        labels[record.label] += 1
        groups.add((hash(record.group), record.split))
    sources = Counter(split for _, split in groups)
    total = sum(length * count for length, count in frames.items())
    lines = {
        "data set": str(root),
        "made from": info.origin,
        "clips": "none"
        if not frames
        else f"{frames.total()} of {min(frames)} to {max(frames)} frames, "
        f"{float(total / info.frame_rate):.1f} s in all",
        "frames": f"{info.width}x{info.height} at {info.frame_rate} per second",
        "sound": f"{info.sample_rate} Hz, {info.num_channels} channel"
        + ("s" if info.num_channels > 1 else ""),
        "splits": ", ".join(
            f"{split} {count} clips of {sources[split]} sources"
            for split, count in sorted(splits.items())
        ),
        "classes": _classes(info, labels),
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
