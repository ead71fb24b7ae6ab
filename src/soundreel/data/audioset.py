"""The published lists of AudioSet: segments, and the words that their labels stand for.

A list of segments (`balanced_train_segments.csv` and the like) begins with comment lines; a row is
an id, start and end in seconds, and machine ids of labels such as `/m/09x0r`, quoted. The file
`class_labels_indices.csv` beside it names them: index, machine id, display name.

Source:
    Gemmeke et al. 2017, "Audio Set: An ontology and human-labeled dataset for audio events".
"""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from soundreel.data.manifest import DataError

LABELS_FILE = "class_labels_indices.csv"


def is_audioset(lines: Sequence[str]) -> bool:
    """Return whether these are the lines of a list of AudioSet segments."""
    return any(line.startswith("#") and "YTID" in line for line in lines[:10])


def label_words(folder: Path) -> dict[str, str]:
    """Return the display name of every machine id.

    Raises:
        DataError: `class_labels_indices.csv` is not in the folder, or is another file.
    """
    path = folder / LABELS_FILE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["mid"]: row["display_name"] for row in csv.DictReader(file)}
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing; put AudioSet's published file beside the list, so that labels"
            " become words"
        ) from None
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not AudioSet's table of labels ({error!r})") from None


def audioset_rows(
    origin: Path, lines: Sequence[str], media: Iterable[Path]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line numbers and columns (path, label, caption, source, start_s, end_s).

    A file ID.EXT is taken for the whole video and cut at the listed times; a file ID_START.EXT or
    ID_START_END.EXT (seconds or milliseconds) for the segment itself. The caption holds the words
    of all labels, separated by commas; the class is the first one.

    Args:
        media: files below the list's folder.

    Raises:
        DataError: a malformed row, or a label without words.
    """
    words = label_words(origin.parent)
    whole, cut = _by_id(origin.parent, media)
    for number, row in enumerate(csv.reader(lines, skipinitialspace=True), 1):
        if not row or row[0].startswith("#"):
            continue
        where = f"{origin}, line {number}"
        if len(row) != 4:
            raise DataError(f"{where}: expected id, start, end, labels, got {row}")
        video_id, start_s, end_s, labels = row
        unknown = [label for label in labels.split(",") if label not in words]
        if unknown:
            raise DataError(f"{where}: {LABELS_FILE} has no label {unknown[0]!r}")
        names = [words[label] for label in labels.split(",")]
        begin = _number(start_s, where)
        segment = cut.get((video_id, begin)) or cut.get((video_id, 1000 * begin))
        times = {"start_s": "", "end_s": ""} if segment else {"start_s": start_s, "end_s": end_s}
        name = segment or whole.get(video_id, f"{video_id}.mp4")
        row_columns = {"path": name, "label": names[0], "caption": ", ".join(names)}
        yield number, row_columns | {"source": video_id} | times


def _by_id(
    folder: Path, media: Iterable[Path]
) -> tuple[dict[str, str], dict[tuple[str, float], str]]:
    """Return names of whole videos by id, and of cut segments by id and start."""
    whole: dict[str, str] = {}
    cut: dict[tuple[str, float], str] = {}
    for path in sorted(media):
        name = path.relative_to(folder).as_posix()
        whole.setdefault(path.stem, name)
        match = re.fullmatch(r"(.{11})_(\d+(?:\.\d+)?)(?:_[\d.]+)?", path.stem)
        if match:
            cut.setdefault((match[1], float(match[2])), name)
    return whole, cut


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: expected seconds, got {text!r}") from None
