"""The Markdown tables of `scene_quality.py`; each function prints one and returns its numbers."""

from typing import Any

import numpy as np
from scene_clips import SceneClip
from scene_copies import Nearest
from scene_statistics import (
    EVENT_KINDS,
    TOLERANCE_S,
    EventRows,
    agreement,
    chance_agreement,
    compare_sync,
    confusions,
    event_rows,
    mean_interval,
    median_ratio,
    near_share,
    sync_statistics,
    thresholds_of,
)

from soundreel.data.scenes.render import KINDS
from soundreel.metrics.evaluation import MetricResult
from soundreel.metrics.frechet import Estimate as DistanceEstimate
from soundreel.metrics.measure import MeasuredSet
from soundreel.study.bootstrap import Estimate

CEILING = 0.97  # below this accuracy on held-out renders, confusions are printed

Numbers = dict[str, Any]
Sets = dict[str, list[SceneClip]]
Kinds = dict[str, tuple[list[str], list[str]]]
"""Of every set the kinds that are seen, and those that are heard."""


def class_table(sets: Sets, seen: Kinds, rng: np.random.Generator) -> Numbers:
    """Agreement of asked, seen and heard kind; chance pairs the clips at random."""
    numbers: Numbers = {}
    for what in ("generated", "other"):
        labels = [clip.label for clip in sets[what]]
        picture, sound = seen[what]
        pairs = {"picture and sound of one kind": (picture, sound)}
        if all(labels):
            pairs |= {
                "picture of its kind": (labels, picture),
                "sound of its kind": (labels, sound),
            }
            numbers[f"{what}, confused pictures"] = confusions(labels, picture)
            numbers[f"{what}, confused sounds"] = confusions(labels, sound)
        numbers[what] = {
            title: {
                "share": mean_interval(agreement(*pair).astype(float), rng),
                "chance": mean_interval(chance_agreement(*pair), rng),
            }
            for title, pair in pairs.items()
        }
    print(
        "\n### Kind of scene\n\nShares of clips, by two classifiers trained on renders; in brackets"
        " 95 % intervals. The held-out renders' share is the classifiers' ceiling.\n\n"
        "| | generated | chance | held-out renders |\n| --- | --- | --- | --- |"
    )
    for title, real in numbers["other"].items():
        own = numbers["generated"].get(title)
        cells = [percent(own["share"]), percent(own["chance"])] if own else ["not asked for", ""]
        print(f"| {title} | {' | '.join(cells)} | {percent(real['share'])} |")
    numbers["by kind"] = by_kind([clip.label for clip in sets["generated"]], *seen["generated"])
    for what in ("pictures", "sounds"):
        wrong = numbers.get(f"other, confused {what}", [])
        if sum(n for _, _, n in wrong) > (1 - CEILING) * len(sets["other"]):
            pairs = ", ".join(f"{a} for {b} ({n})" for b, a, n in wrong[:6])
            print(f"\nIn held-out renders, {what} taken: {pairs}.")
    return numbers


def by_kind(labels: list[str], picture: list[str], sound: list[str]) -> Numbers:
    """Print and return how often each kind is seen and heard, of the clips it was asked of.

    Of clips that nobody asked a kind of, how often each kind is seen and heard at all.
    """
    numbers: Numbers = {}
    for kind in KINDS:
        own = [k for k, label in enumerate(labels) if label == kind or not all(labels)]
        if own:
            found = [sum(one[k] == kind for k in own) / len(own) for one in (picture, sound)]
            numbers[kind] = {"clips": len(own), "picture": found[0], "sound": found[1]}
    cells = [f"{kind} {row['picture']:.0%} / {row['sound']:.0%}" for kind, row in numbers.items()]
    print(f"\nGenerated clips, picture / sound of the kind: {', '.join(cells)}.")
    return numbers


def sync_table(sets: Sets, seen: Kinds, rng: np.random.Generator) -> Numbers:
    """Events in the picture against events in the sound, by kind and over the mean of kinds."""
    rows: dict[str, dict[str, EventRows]] = {}
    for what in ("generated", "other"):
        kinds = [c.label or seen[what][0][k] for k, c in enumerate(sets[what])]
        own = {
            kind: [c.clip for c, k in zip(sets[what], kinds, strict=True) if k == kind]
            for kind in EVENT_KINDS
        }
        rows[what] = {kind: event_rows(found) for kind, found in own.items() if len(found) > 1}
    print(
        "\n### Sync of discrete events\n\nF1 of what starts in the picture and in the sound, within"
        " 0.15 s; shuffled: the sounds of other clips of the kind. Events: seen / heard, per clip."
        "\n\n| kind | clips | generated | shuffled | held-out renders | events | events, renders |"
        "\n| --- | --- | --- | --- | --- | --- | --- |"
    )
    thresholds = dict(zip(("motion", "onset"), thresholds_of(sets["other"][0].clip), strict=True))
    numbers: Numbers = {"tolerance_s": TOLERANCE_S, "thresholds": thresholds, "by kind": {}}
    for kind, own in rows["generated"].items():
        if kind not in rows["other"]:
            continue
        real = rows["other"][kind]
        f1 = [sync_statistics(x.sum(axis=0), len(x))[:2] for x in (own, real)]
        events = [" / ".join(f"{v:.1f}" for v in x[:, 2:4].mean(axis=0)) for x in (own, real)]
        numbers["by kind"][kind] = {
            "clips": len(own),
            "f1": {"generated": f1[0][0], "shuffled": f1[0][1], "real": f1[1][0]},
            "events": dict(zip(("generated", "real"), events, strict=True)),
        }
        cells = (f"{f1[0][0]:.2f}", f"{f1[0][1]:.2f}", f"{f1[1][0]:.2f}", *events)
        print(f"| {kind} | {len(own)} | {' | '.join(cells)} |")
    numbers |= compare_sync(rows["generated"], rows["other"], rng)
    print(
        "\nMeans over these kinds; the share says where generated pairs lie between shuffled ones"
        " (0) and held-out renders (1). The score is that of `soundreel sync`.\n\n"
        "| | generated | shuffled | held-out renders | those shuffled | share |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for key, title in (("f1", "event F1"), ("score", "sync score")):
        if key in numbers:
            columns = ("generated", "shuffled", "real", "real shuffled", "share")
            print(f"| {title} | {' | '.join(text(numbers[key][c]) for c in columns)} |")
    return numbers


def distance_table(found: dict[str, list[MetricResult]]) -> Numbers:
    """Distances of generated clips, and of other renders, to the held-out renders."""
    print(
        "\n### Distance to held-out renders\n\n"
        "| | generated | other held-out renders |\n| --- | --- | --- |"
    )
    for own, other in zip(found["generated"], found["other"], strict=True):
        print(f"| {own.name} | {text(own.overall)} | {text(other.overall)} |")
    return {what: {one.name: one for one in results} for what, results in found.items()}


def copies_table(
    near: dict[str, dict[str, Nearest]],
    generated_set: MeasuredSet,
    num_training: int,
    rng: np.random.Generator,
) -> Numbers:
    """Whether generated clips lie nearer to training clips than held-out renders do."""
    print(
        f"\n### Nearest of {num_training} training clips\n\nMedian distance, as a multiple of that"
        " of held-out renders, and share of clips nearer than all but 5 % of them.\n\n"
        "| | distance, generated | other renders | share near, generated | other renders |\n"
        "| --- | --- | --- | --- | --- |"
    )
    numbers: Numbers = {}
    for modality, found in near.items():
        ordinary = found["held out"].distance
        row = {
            what: {
                "median ratio": median_ratio(found[what].distance, ordinary, rng),
                "share near": near_share(found[what].distance, ordinary, rng),
            }
            for what in ("generated", "other")
        }
        cells = [text(row[what]["median ratio"]) for what in row]
        cells += [percent(row[what]["share near"]) for what in row]
        print(f"| {modality} | {' | '.join(cells)} |")
        own = found["generated"]
        nearest = [
            {
                "generated": generated_set.names[k],
                "training": own.found[k],
                "ratio": float(own.distance[k] / np.median(ordinary)),
            }
            for k in np.argsort(own.distance)[:10].tolist()
        ]
        numbers[modality] = {**row, "nearest": nearest}
    return numbers


def text(estimate: Estimate | DistanceEstimate) -> str:
    return f"{estimate.value:.4g} ({estimate.low:.3g} to {estimate.high:.3g})"


def percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"
