"""Thresholds of the event detectors for clips of one size and rate: a row of `scene_statistics`.

    python benchmarks/fit_event_thresholds.py --size 128 --frame-rate 16

Those that tell true from shuffled pairs of rendered clips best, on seeds that are used for nothing
else: the difference of the two F1, over the mean of the kinds with events.
"""

import argparse
from fractions import Fraction

import numpy as np
from scene_clips import rendered_windows
from scene_statistics import EVENT_KINDS, TOLERANCE_S, partners_of

from soundreel.data.scenes.render import KINDS
from soundreel.metrics.sync.events import match_events
from soundreel.metrics.sync.signals import (
    MotionCurves,
    SoundCurves,
    motion_curves,
    motion_peaks_of,
    onsets_of,
    sound_curves,
)
from soundreel.types import ClipSpec

MOTION_THRESHOLDS = tuple(np.arange(2.0, 20.1, 1.0).tolist())
ONSET_THRESHOLDS = tuple(np.arange(3.0, 25.1, 1.0).tolist())

Curves = list[tuple[MotionCurves, SoundCurves]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frame-rate", type=Fraction, default=Fraction(16))
    parser.add_argument("--duration-s", type=float, default=2.0)
    parser.add_argument("--count", type=int, default=330, help="rendered clips, kinds in turn")
    parser.add_argument("--seed", type=int, default=5300)
    options = parser.parse_args()
    rate = options.frame_rate
    spec = ClipSpec(
        num_frames=round(options.duration_s * rate),
        height=options.size,
        width=options.size,
        frame_rate=rate,
    )
    kinds = list(KINDS)
    indices = [i for i in range(options.count) if kinds[i % len(kinds)] in EVENT_KINDS]
    curves: dict[str, Curves] = {kind: [] for kind in EVENT_KINDS}
    for window in rendered_windows(spec, options.seed, indices):
        clip = window.clip
        pair = motion_curves(clip.frames), sound_curves(clip.waveform, clip.sample_rate)
        curves[window.label].append(pair)
    table = np.mean([separations(own, rate) for own in curves.values()], axis=0)
    row, column = np.unravel_index(table.argmax(), table.shape)
    best = (MOTION_THRESHOLDS[row], ONSET_THRESHOLDS[column])
    print(f"({options.size}, {float(rate):g}): {best},  # F1 above chance {table.max():.3f}")
    print("with the motion's best threshold:", np.round(table[row], 3).tolist())
    print("with the sound's best threshold:", np.round(table[:, column], 3).tolist())


def separations(curves: Curves, rate: Fraction) -> np.ndarray:
    """F1 of true pairs minus F1 of shuffled ones, a row a motion threshold."""
    seen = [[motion_peaks_of(m, rate, t) for m, _ in curves] for t in MOTION_THRESHOLDS]
    heard = [[onsets_of(s, t) for _, s in curves] for t in ONSET_THRESHOLDS]
    return np.array([[_separation(pictures, sounds) for sounds in heard] for pictures in seen])


def _separation(seen: list[list[float]], heard: list[list[float]]) -> float:
    true = shuffled = 0.0
    for own, events in enumerate(seen):
        first, *others = (
            match_events(events, heard[k], TOLERANCE_S).num_matched
            for k in partners_of(own, len(seen))
        )
        true, shuffled = true + first, shuffled + float(np.mean(others))
    return 2 * (true - shuffled) / max(sum(map(len, seen)) + sum(map(len, heard)), 1)


if __name__ == "__main__":
    main()
