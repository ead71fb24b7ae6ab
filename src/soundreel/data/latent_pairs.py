"""Cached latents of windows that follow each other in the same clip."""

import torch
from torch.utils.data import Dataset

from soundreel.data.dataset import Sample
from soundreel.data.latents import LatentDataset
from soundreel.data.manifest import DataError
from soundreel.types import AV


class LatentPairs(Dataset):
    """All pairs of windows `distance` frames apart, in the order of the first one.

    Both windows are of one clip and were encoded alike: cached latents are never flipped. What a
    sample holds is `pair ...` for each modality, the earlier window first; its start frame is the
    earlier one's.

    Args:
        latents: windows of a data set, one every so many frames of each clip.
        distance: frames from the start of a window to the start of the next.

    Raises:
        DataError: no clip holds two such windows.
    """

    def __init__(self, latents: LatentDataset, distance: int) -> None:
        self._latents = latents
        places = latents.places()
        rows = {place: row for row, place in enumerate(places)}
        self._rows = [
            (row, rows[key, start + distance])
            for row, (key, start) in enumerate(places)
            if (key, start + distance) in rows
        ]
        if not self._rows:
            raise DataError(
                f"no clip holds two windows {distance} frames apart; prepare longer clips, or let "
                "windows overlap more"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return the index-th pair."""
        earlier, later = (self._latents[row] for row in self._rows[index])
        pair: AV = earlier.av.map(lambda a, b: torch.stack([a, b]), later.av)
        return Sample(
            av=pair, label=earlier.label, key=earlier.key, start_frame=earlier.start_frame
        )

    def draw(self, index: int, generator: torch.Generator) -> Sample:
        """Return the same: the loader's interface, which nothing random needs here."""
        del generator
        return self[index]
