"""How far clips are from the nearest training clip: the search of `scene_quality.py`.

The descriptions, the stretches and the search are those of `soundreel evaluate --train`; only here
the distances of the held-out clips are kept as well, so that any of their quantiles can be asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scene_clips import Advance

from soundreel.metrics.copies import MAX_TRAINING_S, describe_stretches
from soundreel.metrics.measure import ClipItem, MeasuredSet, checked, for_each_clip
from soundreel.metrics.memorisation import NearestSearch
from soundreel.metrics.streams import watch


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of each clip of a set: its distance to the nearest training clip, and which that is."""

    distance: Float[np.ndarray, " clip"]
    found: list[str]


def nearest_training(
    training: Sequence[ClipItem],
    sets: Mapping[str, MeasuredSet],
    duration_s: float,
    advance: Advance,
) -> dict[str, dict[str, Nearest]]:
    """By modality and by set; every stretch of every training clip is looked at.

    Raises:
        ValueError: a training clip cannot be read or is too short.
    """
    picture = NearestSearch(torch.cat([one.pictures for one in sets.values()]))
    sound = NearestSearch(torch.cat([one.sounds for one in sets.values()]))

    def look(item: ClipItem) -> None:
        whole = watch(item.open(max(duration_s, MAX_TRAINING_S)), None)
        starts_s, pictures, sounds = describe_stretches(checked(whole, duration_s), duration_s)
        picture.see(item.name, starts_s, pictures)
        sound.see(item.name, starts_s, sounds)

    skipped = for_each_clip(training, look, advance)
    if skipped:
        raise ValueError(f"training clip {skipped[0].name}: {skipped[0].reason}")
    result: dict[str, dict[str, Nearest]] = {"picture": {}, "sound": {}}
    for modality, search in (("picture", picture), ("sound", sound)):
        first = 0
        for name, one in sets.items():
            last = first + len(one.names)
            result[modality][name] = Nearest(
                search.distance[first:last].double().numpy(),
                [f"{key} from {start_s:.1f} s" for key, start_s in search.found[first:last]],
            )
            first = last
    return result
