"""Reading all of a prepared data set once, to know that it is as it was written."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from soundreel.data.manifest import DataError, DatasetInfo, check_list, iter_manifest
from soundreel.data.shards import ShardReader


def verify_dataset(
    root: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Compare every clip with its hash, and all that lies around it in its shard.

    Args:
        progress: called with the number of clips done, and of all.

    Returns:
        Number of clips.

    Raises:
        DataError: naming the first file, line or clip that is damaged.
    """
    info, number = DatasetInfo.load(root), 0
    total = int(info.counts.get("clips", 0))
    for name in info.checksums:
        check_list(root, name)
    with closing(ShardReader(root)) as reader:
        for number, record in enumerate(iter_manifest(root), 1):
            if record.label >= len(info.classes):
                raise DataError(
                    f"{root}: there is no class {record.label}, that of clip {record.key}"
                )
            reader.verify(record, info.classes[record.label] if record.label >= 0 else "")
            progress(number, total)
    return number
