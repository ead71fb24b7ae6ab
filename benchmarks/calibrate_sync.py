"""Every sync metric on rendered scenes with known shifts: the table in docs/evaluation.md.

    python benchmarks/calibrate_sync.py --clips 132 [--frame-rate 25] [--duration 4]

True pairs are told from the same pairs with the sound taken 0.3 s later (AUROC by kind and over
all), and offsets drawn from -0.25 to 0.25 s are estimated.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from soundreel.data.scenes.render import DISCRETE_KINDS, RenderOptions, render_clip
from soundreel.metrics.sync.calibration import auroc, cut_pair
from soundreel.metrics.sync.score import measure_sync
from soundreel.metrics.sync.signals import Frames, Waveform


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=132)
    parser.add_argument("--frame-rate", type=Fraction, default=Fraction(25))
    parser.add_argument("--duration", type=float, default=4.0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shift", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--options", default="{}", help="more fields of RenderOptions as JSON")
    args = parser.parse_args()
    rate = args.frame_rate
    options = replace(
        RenderOptions(
            num_frames=round((args.duration + 1) * rate),
            height=args.size,
            width=args.size,
            frame_rate=rate,
            thunder_delay_s=0.0,
        ),
        **json.loads(args.options),
    )
    rng = np.random.default_rng(args.seed)
    scores = defaultdict(lambda: defaultdict(list))
    for index in range(args.clips):
        clip = render_clip(options, args.seed, index)
        frames, sound = clip.frames, clip.waveform
        pair = [cut_pair(frames, sound, rate, 16_000, args.duration, s) for s in (0, args.shift)]
        true, late = (measure_sync(f, rate, w, 16_000) for f, w in pair)
        offset = rng.uniform(-0.25, 0.25)
        moved = measure_sync(
            *_moved(frames, sound, rate, args.duration, offset), sample_rate=16_000
        )
        row = scores[clip.kind]
        row["recommended"].append((true.score, late.score))
        row["correlation"].append((true.correlation, late.correlation))
        row["offset"].append(np.nan if moved.offset_s is None else moved.offset_s - offset)
        row["p"].append(true.p_value)
    report(scores, 1 / float(rate))


def _moved(
    frames: Frames, sound: Waveform, rate: Fraction, duration_s: float, offset_s: float
) -> tuple[Frames, Fraction, Waveform]:
    """A pair whose sound comes `offset_s` late."""
    first = round(0.5 * rate)
    start = round((float(first / rate) - offset_s) * 16_000)
    count = round(duration_s * 16_000)
    return frames[first : first + round(duration_s * rate)], rate, sound[:, start : start + count]


def report(scores: dict[str, dict[str, list[Any]]], frame_s: float) -> None:
    names = [n for n in next(iter(scores.values())) if n not in ("offset", "p")]
    head = " | ".join(f"AUROC {n}" for n in names)
    print(f"| scenes | clips | {head} | median score true / shifted | p <= 0.05 | within a frame |")
    print("|" + " --- |" * (len(names) + 5))
    groups = {kind: [kind] for kind in scores}
    groups["all discrete"] = [k for k in scores if k in DISCRETE_KINDS]
    groups["all"] = list(scores)
    for group, kinds in groups.items():
        cells = []
        for name in names:
            pairs = np.array([p for k in kinds for p in scores[k][name]])
            cells.append(f"{auroc(pairs[:, 0], pairs[:, 1]):.3f}")
        pairs = np.array([p for k in kinds for p in scores[k]["recommended"]])
        offsets = np.array([o for k in kinds for o in scores[k]["offset"]])
        p = np.array([v for k in kinds for v in scores[k]["p"]])
        print(
            f"| {group} | {len(pairs)} | {' | '.join(cells)} | "
            f"{np.median(pairs[:, 0]):.1f} / {np.median(pairs[:, 1]):.1f} | "
            f"{np.mean(p <= 0.05):.2f} | {np.mean(np.abs(offsets) <= frame_s):.2f} |"
        )


if __name__ == "__main__":
    main()
