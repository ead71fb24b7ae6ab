"""Does the recommended sync score prefer the true sound of real clips over shifted sound?

python benchmarks/sync_on_real_clips.py FOLDER [--shift 0.4] [--duration 2.4] [--clips 100]
"""

import argparse
from pathlib import Path

import numpy as np

from soundreel.clip import Clip
from soundreel.metrics.sync.calibration import auroc, auroc_interval, cut_pair
from soundreel.metrics.sync.score import measure_sync


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shift", type=float, default=0.4)
    parser.add_argument("--duration", type=float, default=2.4)
    parser.add_argument("--clips", type=int, default=100)
    args = parser.parse_args()
    files = sorted(p for p in args.folder.rglob("*") if p.suffix in (".mp4", ".mpg", ".mkv"))
    chosen = np.random.default_rng(0).permutation(len(files))[: args.clips]
    true, late, preferred = [], [], 0
    for k in sorted(chosen.tolist()):
        clip = Clip.load(files[k])
        if clip.frames is None or clip.waveform is None:
            continue
        scores = []
        for shift in (0.0, args.shift):
            frames, sound = cut_pair(
                clip.frames,
                clip.waveform,
                clip.frame_rate,
                clip.sample_rate,
                args.duration,
                shift,
            )
            scores.append(measure_sync(frames, clip.frame_rate, sound, clip.sample_rate).score)
        true.append(scores[0])
        late.append(scores[1])
        preferred += scores[0] > scores[1]
    low, high = auroc_interval(true, late, np.random.default_rng(0))
    print(
        f"{len(true)} clips: AUROC {auroc(true, late):.3f} ({low:.3f} to {high:.3f}, 95 %), "
        f"true preferred in {preferred / len(true):.0%}, median score {np.median(true):.2f} "
        f"against {np.median(late):.2f}"
    )


if __name__ == "__main__":
    main()
