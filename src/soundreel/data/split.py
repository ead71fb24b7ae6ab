"""Assign sources to splits by a hash of their name, so that adding files moves no other."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from soundreel.data.options import PrepareOptions
from soundreel.data.scan import Source

TRAIN = "train"


def splits_of(
    sources: Sequence[Source], options: PrepareOptions, known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the split of each group of sources; see `assign_splits`."""
    # What is known to be unusable must not take the place of a clip to hold out.
    return dict.fromkeys((source.group for source in sources), TRAIN) | assign_splits(
        [source.group for source in sources if not source.problem],
        test=options.test,
        valid=options.valid,
        seed=options.seed,
        known=known or {},
    )


def assign_splits(
    groups: Iterable[str], *, test: float, valid: float, seed: int, known: Mapping[str, str]
) -> dict[str, str]:
    """Draw the split of each group of clips that show the same thing.

    Args:
        test, valid: share of the groups (below 1) or number of them (from 1 on); `valid` is drawn
            from what `test` leaves.
        known: splits given in earlier runs; they are kept, and count towards the numbers.

    Returns:
        `known` and the new groups; by shares, a group's split depends on its own name and the seed
        alone.
    """
    splits = dict(known)
    fresh = sorted(set(groups) - splits.keys())
    for split, amount in (("test", test), ("valid", valid)):
        ranked = sorted((_uniform(f"{seed}:{split}:{group}"), group) for group in fresh)
        if amount < 1:
            chosen = [group for rank, group in ranked if rank < amount]
        else:
            missing = int(amount) - sum(value == split for value in splits.values())
            chosen = [group for _, group in ranked[: max(0, missing)]]
        splits |= dict.fromkeys(chosen, split)
        fresh = [group for group in fresh if group not in splits]
    return splits | dict.fromkeys(fresh, TRAIN)


def _uniform(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
